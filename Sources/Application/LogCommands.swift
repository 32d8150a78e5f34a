import ArgumentParser
import Base
import EventLog
import Foundation
import Node

/// The log's own commands: they ask the node that runs, and look at the files themselves when there is none.
struct Log: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Look at the log's files, check them, copy them, bring them back.",
        subcommands: [Inspect.self, Verify.self, Backup.self, Restore.self, Repair.self, Order.self, Unpin.self])

    /// Asks a running node, or opens the log of the directory.
    static func ask(
        _ common: Common, _ method: String, _ path: String, body: [UInt8]? = nil, writes: Bool = false,
        _ direct: (EmbeddedLog) throws -> JSON
    ) async throws -> JSON {
        let configuration = NodeConfiguration(dataDirectory: common.data, platformTopics: "")
        let directory = configuration.logDirectory
        if EmbeddedLog.isOwned(directory) {
            let connection = try common.connection()
            defer { connection.close() }
            return try await connection.ask(method, path, body: body) { node in try direct(node.files()) }
        }
        guard FileManager.default.fileExists(atPath: directory) else {
            throw NodeError("unknown-data", "there is no log in '\(common.data)'")
        }
        try LogChoice.requireFiles(configuration)
        var options = EmbeddedLog.Options()
        options.readOnly = !writes
        let log = try EmbeddedLog.open(directory, options: options)
        defer { log.close() }
        return try direct(log)
    }
}

struct Inspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "What stands in the log's files.")
    @OptionGroup var common: Common
    @Option(name: .long, help: "A WAL segment of which to list the frames.") var file: String?
    @Option(name: .long, help: "List frames from this byte on.") var from: Int64 = 0
    @Option(name: .long, help: "List so many frames.") var limit = 50

    func run() async throws {
        try await reporting {
            if let file {
                let directory = NodeConfiguration(dataDirectory: common.data, platformTopics: "").logDirectory
                let answer = try LogReport.frames(directory, file, from: from, limit: limit)
                if common.json { return Terminal.print(answer) }
                Terminal.table(
                    ["at", "bytes", "sequence", "events", "recorded", "principal", "batches"],
                    (answer["frames"]?.array ?? []).map { frame in
                        ["at", "bytes", "firstSequence", "events", "recorded", "principal"].map {
                            Terminal.cell(frame[$0] ?? .null)
                        } + [(frame["batches"]?.array ?? []).compactMap(\.string).joined(separator: ", ")]
                    })
                let damaged = answer["damaged"]?.array ?? []
                for range in damaged { print("damaged bytes: \(Inspect.range(range))") }
                if !damaged.isEmpty { throw ExitCode(11) }
                return
            }
            let answer = try await Log.ask(common, "GET", "/v1/log") { LogReport.inspection($0) }
            if common.json {
                Terminal.print(answer)
                return try Inspect.refuseDamage(answer)
            }
            if let brokers = answer["kafka"]?.string { return Inspect.show(answer, brokers) }
            print("\(Terminal.cell(answer["events"] ?? .null)) events, head \(answer["head"]?.string ?? "")")
            let written = ((answer["writeAmplification"]?.double ?? 1) * 100).rounded() / 100
            print(
                written == 1
                    ? "nothing has moved out of the WAL yet\n"
                    : "\(written) bytes written for each that arrived, of what was moved (without indexes, ids and chain)\n"
            )
            Terminal.table(
                ["partition", "offsets", "files", "bytes", "in WAL", "compacted to"],
                (answer["partitions"]?.array ?? []).map { row in
                    ["partition", "offsets", "files", "bytes", "waitingBatches", "compactedThrough"].map {
                        $0 == "offsets" ? Inspect.range(row[$0] ?? .null) : Terminal.cell(row[$0] ?? .null)
                    }
                })
            print("")
            Terminal.table(
                ["WAL segment", "first sequence", "bytes"],
                (answer["segments"]?.array ?? []).map { row in
                    ["file", "firstSequence", "bytes"].map { Terminal.cell(row[$0] ?? .null) }
                })
            for pin in answer["pins"]?.array ?? [] {
                let ranges = JSON.sorted(pin["ranges"]?.object ?? [:]).map { name, range in
                    "\(name) \((range.array ?? []).compactMap(\.int).map { "\($0)" }.joined(separator: "..<"))"
                }
                print("pinned by \(pin["name"]?.string ?? ""): \(ranges.joined(separator: ", "))")
            }
            for damage in answer["recovery"]?["damaged"]?.array ?? [] { print("damaged: \(damage.string ?? "")") }
            for lost in answer["recovery"]?["lostIds"]?.array ?? [] { print("lost: \(lost.string ?? "")") }
            if let failure = answer["upkeep"]?.string { print("the upkeep failed: \(failure)") }
            try Inspect.refuseDamage(answer)
        }
    }
}

extension Inspect {
    /// Damage that is known ends every command of the log with the same code.
    fileprivate static func refuseDamage(_ answer: JSON) throws {
        let recovery = answer["recovery"]
        guard ["damaged", "lostIds"].allSatisfy({ recovery?[$0]?.array?.isEmpty ?? true }) else { throw ExitCode(11) }
    }

    /// Half-open, as everywhere.
    fileprivate static func range(_ json: JSON) -> String {
        guard let ends = json.array?.compactMap(\.int), ends.count == 2 else { return Terminal.cell(json) }
        return "\(ends[0])..<\(ends[1])"
    }
}

struct Verify: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Read everything, check every checksum, digest and link of the chain.")
    @OptionGroup var common: Common

    func run() async throws {
        try await reporting {
            let answer = try await Log.ask(common, "POST", "/v1/log/verify", body: []) {
                try LogReport.verification($0)
            }
            common.json ? Terminal.print(answer) : Verify.show(answer)
            if answer["verdict"]?.string != "INTACT" { throw ExitCode(11) }
        }
    }

    static func show(_ answer: JSON) {
        func cell(_ name: String) -> String { Terminal.cell(answer[name] ?? .null) }
        print("\(cell("verdict"))  \(cell("events")) events in \(cell("frames")) appends, \(cell("bytes")) bytes")
        print("head \(cell("head"))")
        if (answer["released"]?.int ?? 0) > 0 { print("\(cell("released")) events were trimmed or compacted") }
        for line in answer["damaged"]?.array ?? [] { print("damaged: \(line.string ?? "")") }
        for line in answer["rewritten"]?.array ?? [] { print("rewritten: \(line.string ?? "")") }
        for line in answer["lostIds"]?.array ?? [] { print("lost: \(line.string ?? "")") }
        if let mark = answer["mark"]?.string { print(mark) }
        for line in answer["unreadable"]?.array ?? [] {
            print("unreadable: the disk gives no bytes of \(line.string ?? "") now; check again later")
        }
        for line in answer["rebuildable"]?.array ?? [] {
            print("derived: \(line.string ?? "") is missing or damaged and can be built again: headrace log repair")
        }
    }
}

struct Backup: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Copy the log as it is now; a second time only what is new.")
    @OptionGroup var common: Common
    @Argument(help: "The directory of the backup.") var directory: String

    func run() async throws {
        try await reporting {
            let path = URL(filePath: directory).standardizedFileURL.path
            let body = JSON.object(["directory": .string(path)]).canonical
            let answer = try await Log.ask(common, "POST", "/v1/log/backup", body: body) {
                try LogReport.backup($0, to: path)
            }
            if common.json { return Terminal.print(answer) }
            func cell(_ name: String) -> String { Terminal.cell(answer[name] ?? .null) }
            print(
                "\(cell("events")) events, \(cell("totalBytes")) bytes in \(cell("files")) files; \(cell("copiedBytes")) bytes were new"
            )
            for line in answer["kept"]?.array ?? [] {
                print("kept in the backup, which knows more ids than the log does: \(line.string ?? "")")
            }
            for line in answer["damaged"]?.array ?? [] {
                print("the log is damaged, and so is the backup: \(line.string ?? "")")
            }
            if answer["damaged"]?.array?.isEmpty == false { throw ExitCode(11) }
        }
    }
}

struct Restore: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Bring a backup back into an empty data directory and check it.")
    @OptionGroup var common: Common
    @Argument(help: "The directory of the backup.") var backup: String

    func run() async throws {
        try await reporting {
            let directory = NodeConfiguration(dataDirectory: common.data, platformTopics: "").logDirectory
            let answer = try LogReport.restore(from: backup, to: directory)
            common.json ? Terminal.print(answer) : Verify.show(answer["verification"] ?? .null)
            if answer["verification"]?["verdict"]?.string != "INTACT" { throw ExitCode(11) }
        }
    }
}

extension Inspect {
    /// A log on Kafka.
    static func show(_ answer: JSON, _ brokers: String) {
        print("\(Terminal.cell(answer["events"] ?? .null)) events on Kafka at \(brokers)\n")
        Terminal.table(
            ["partition", "offsets"],
            (answer["partitions"]?.array ?? []).map { row in
                let offsets = (row["offsets"]?.array ?? []).compactMap(\.int)
                return [row["partition"]?.string ?? "", offsets.map { "\($0)" }.joined(separator: "..<")]
            })
        for drift in answer["drift"]?.array ?? [] {
            print(
                "drift: \(drift["topic"]?.string ?? "") has \(drift["setting"]?.string ?? "") \(drift["actual"]?.string ?? "") on the brokers, declared is \(drift["declared"]?.string ?? "")"
            )
        }
        for (name, behind) in JSON.sorted(answer["lag"]?.object ?? [:]) where (behind.int ?? 0) > 0 {
            print("lag: \(name) is \(Terminal.cell(behind)) records behind")
        }
    }
}

struct Order: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "The order in which events of all topics came: where each of them stands.")
    @OptionGroup var common: Common
    @Option(name: .long, help: "The first sequence.") var from: UInt64 = 0
    @Option(name: .long, help: "Events at most.") var limit = 50

    func run() async throws {
        try await reporting {
            guard (1...Limits.pageEvents).contains(limit) else {
                throw NodeError("bad-use", "--limit is a number from 1 to \(Limits.pageEvents), not \(limit)")
            }
            let answer = try await Log.ask(common, "GET", "/v1/log/order?from=\(from)&limit=\(limit)") {
                try LogReport.order($0, from: from, limit: limit)
            }
            let lost = answer["lost"]?.array ?? []
            if common.json {
                Terminal.print(answer)
            } else if let rows = answer["order"]?.array, !rows.isEmpty {
                Terminal.table(
                    ["sequence", "position"],
                    rows.map { row in ["sequence", "position"].map { Terminal.cell(row[$0] ?? .null) } })
            } else if lost.isEmpty {
                print("the log has \(Terminal.cell(answer["events"] ?? .null)) events, none from sequence \(from) on")
            }
            guard !lost.isEmpty else { return }
            if !common.json {
                for range in lost { print("lost: the places of \(Inspect.range(range)); see headrace log verify") }
            }
            throw ExitCode(11)
        }
    }
}

struct Unpin: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Release what a pin holds, such as model:NAME@VERSION. Retention may then take what an audit needs.")
    @OptionGroup var common: Common
    @Argument(help: "The pin's name, as inspect shows it.") var name: String

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let body = JSON.object(["pin": .string(name)]).canonical
            let answer = try await connection.ask("POST", "/v1/log/unpin", body: body) { node in try node.unpin(name) }
            if common.json { return Terminal.print(answer) }
            print("released \(name)")
        }
    }
}
