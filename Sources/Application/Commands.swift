import API
import ArgumentParser
import Base
import Catalog
import EventLog
import Foundation
import Gateway
import Node
import RecordFormat

struct Apply: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Check a workspace and bring its definitions into force.")
    @OptionGroup var common: Common
    @Argument(help: "A folder of YAML definitions.") var directory: String

    func run() async throws {
        try await reporting {
            let body = try Plan.body(directory)
            let connection = try common.connection()
            defer { connection.close() }
            let answer = try await connection.ask("POST", "/v1/definitions", body: body.canonical) { node in
                try node.apply(body)
            }
            if common.json { return Terminal.print(answer) }
            Terminal.table(
                ["definition", "change"],
                (answer["changes"]?.array ?? []).map { [$0["definition"]?.string ?? "", $0["change"]?.string ?? ""] })
            if let note = answer["note"]?.string { print(note) }
        }
    }
}

struct Plan: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check a workspace and say what applying it would do.",
        discussion: "Exit code 1 where a definition would be refused. + is new, - goes, ~ changes.")
    @OptionGroup var common: Common
    @Argument(help: "A folder of YAML definitions.") var directory: String

    /// The definitions of a folder as they are sent.
    static func body(_ directory: String) throws -> JSON {
        .object([
            "definitions": .array(
                try Workspace.read(directory: directory).map {
                    .object([
                        "kind": .string($0.kind), "name": .string($0.name), "body": $0.body,
                        "place": .string($0.place), "lines": .object($0.lines.mapValues { .int(Int64($0)) }),
                    ])
                })
        ])
    }

    /// Where there is neither node nor log, everything is checked on its own.
    private static func ask(_ common: Common, _ body: JSON) async throws -> JSON {
        let connection: Connection
        do {
            connection = try common.connection()
        } catch let error as NodeError where error.code == "unknown-data" {
            return try Node.plan(body, platformTopics: home() + "/Topics")
        }
        defer { connection.close() }
        return try await connection.ask("POST", "/v1/plan", body: body.canonical) { try $0.plan(body) }
    }

    func run() async throws {
        try await reporting {
            let body = try Plan.body(directory)
            let answer = try await Plan.ask(common, body)
            let changes = answer["changes"]?.array ?? []
            let refused = changes.filter { $0["effect"] == "refused" }
            if common.json {
                Terminal.print(answer)
            } else {
                Terminal.table(
                    ["definition", "change", "version", "effect", "differences"],
                    changes.map { change in
                        let (from, to) = (change["from"]?.int, change["to"]?.int ?? 0)
                        return [
                            change["definition"]?.string ?? "", change["change"]?.string ?? "",
                            from.map { $0 == to ? "\(to)" : "\($0) to \(to)" } ?? "\(to)",
                            change["effect"]?.string ?? "",
                            (change["differences"]?.array ?? []).compactMap(\.string).joined(separator: ", "),
                        ]
                    })
                for change in refused { print(change["reason"]?.string ?? "") }
                let left = (answer["left"]?.array ?? []).compactMap(\.string)
                if !left.isEmpty {
                    print("in force and not in the folder: \(left.joined(separator: ", ")) (see headrace remove)")
                }
            }
            if !refused.isEmpty { throw ExitCode(1) }
        }
    }
}

struct Remove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Take definitions out of force: feature views, derived views, services, entities.",
        discussion: """
            Together or not at all, and only what nothing else reads. The log keeps what they were. Take them out of the \
            workspace's folder as well, or the next apply brings them back.
            """)
    @OptionGroup var common: Common
    @Argument(help: "KIND/NAME, such as FeatureView/spend.") var definitions: [String]

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let body = JSON.object(["definitions": .array(definitions.map { .string($0) })])
            let answer = try await connection.ask("POST", "/v1/definitions/remove", body: body.canonical) {
                try $0.remove(definitions)
            }
            if common.json { return Terminal.print(answer) }
            for key in answer["removed"]?.array ?? [] { print("removed \(key.string ?? "")") }
        }
    }
}

struct Topics: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List the topics.")
    @OptionGroup var common: Common

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let answer = try await connection.ask("GET", "/v1/topics") { node in try node.topicList() }
            if common.json { return Terminal.print(answer) }
            Terminal.table(
                ["topic", "partitions", "records", "owner", "description"],
                (answer["topics"]?.array ?? []).map { topic in
                    ["name", "partitions", "records", "owner", "description"].map { Terminal.cell(topic[$0] ?? .null) }
                })
        }
    }
}

struct Tail: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print the events of a topic and follow it.")
    @OptionGroup var common: Common
    @Argument(help: "The topic.") var topic: String
    @Option(
        name: .long, help: "An offset, partition:offset pairs, an RFC 3339 time, or end; the beginning when absent.")
    var from: String?
    @Option(name: .long, help: "Stop after so many events.") var limit: Int?
    @Flag(name: .long, inversion: .prefixedNo, help: "Wait for more at the end.") var follow = true

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            var next = from ?? ""
            var printed = 0
            while true {
                let page = min(limit.map { $0 - printed } ?? 500, 500)
                guard page > 0 else { return }
                let path = "/v1/topics/\(Connection.escape(topic))/events?from=\(Connection.escape(next))&limit=\(page)"
                let answer: JSON
                do {
                    answer = try await connection.ask("GET", path) { node in
                        try Routes(node: node, log: node.log, gateway: node.gateway, clock: { Instant.wallClock() })
                            .readPage(topic: topic, from: next, limit: page, progress: false)
                    }
                } catch let error as any DescribedError where !next.isEmpty && printed > 0 {
                    // Whoever goes on later needs to know where; of damage, the error says it.
                    guard error.code != "rot" else { throw error }
                    FileHandle.standardError.write(Data("headrace: to go on from here: --from \(next)\n".utf8))
                    throw error
                }
                let events = answer["events"]?.array ?? []
                for gone in answer["trimmed"]?.array ?? [] {
                    FileHandle.standardError.write(Data("headrace: retention took \(gone.string ?? "")\n".utf8))
                }
                next = answer["next"]?.string ?? next
                for event in events {
                    printed += 1
                    if common.json {
                        print(event.text)
                    } else {
                        // What takes a key away says which.
                        let data = event["data"]?.text ?? "–" + (event["partitionkey"]?.string.map { " \($0)" } ?? "")
                        print(
                            "\(event["position"]?.string ?? "")  \(event["time"]?.string ?? "")  \(event["type"]?.string ?? "")  \(data.count > 200 ? data.prefix(200) + "…" : data[...])"
                        )
                    }
                }
                // A pipe or file gets each page at once, too.
                fflush(nil)
                if events.isEmpty {
                    guard follow else { return }
                    guard connection.local == nil else {
                        FileHandle.standardError.write(
                            Data("headrace: no node is running, so nothing more will come\n".utf8))
                        return
                    }
                    try await Task.sleep(for: .milliseconds(200))
                }
            }
        }
    }
}

struct Publish: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Publish events: a JSON document as data, or CloudEvents (one, or an array) read from a file or standard input."
    )
    @OptionGroup var common: Common
    @Argument(help: "The topic.") var topic: String
    @Option(name: .long, help: "The event's data as JSON; its id is then --id.") var value: String?
    @Option(name: .long, help: "The event's id.") var id: String?
    @Option(name: .long, help: "The event's type.") var type = "event"
    @Option(name: .long, help: "The partition key.") var key: String?
    @Option(name: .long, help: "The event time (RFC 3339); now when absent.") var time: String?
    @Flag(
        name: .long, help: "An event without data, which removes its key from a compacted topic; takes --id and --key.")
    var tombstone = false
    @Option(name: .long, help: "A file with structured CloudEvents; - is standard input.") var file: String?
    @Option(name: .long, help: "synced, or relaxed: answered before the events are on the disk.") var durability:
        String?

    func run() async throws {
        try await reporting {
            let body = try events()
            let connection = try common.connection()
            defer { connection.close() }
            let answer = try await connection.ask(
                "POST",
                "/v1/events?topic=\(Connection.escape(topic))"
                    + (durability.map { "&durability=" + Connection.escape($0) } ?? ""),
                body: body.canonical,
                contentType: "application/cloudevents-batch+json"
            ) { node in
                try await Routes(node: node, log: node.log, gateway: node.gateway, clock: { Instant.wallClock() })
                    .publishBatch(body, topic: topic, durability: durability)
            }
            if common.json {
                Terminal.print(answer)
            } else {
                Terminal.table(
                    ["id", "status", "position or reason"],
                    (answer["events"]?.array ?? []).map {
                        [
                            $0["id"]?.string ?? "", $0["status"]?.string ?? "",
                            $0["position"]?.string ?? $0["message"]?.string ?? "",
                        ]
                    })
            }
            if (answer["events"]?.array ?? []).contains(where: { $0["status"]?.string == "refused" }) {
                throw ExitCode(2)
            }
        }
    }
}

extension Publish {
    /// The batch that the options and files speak of.
    private func events() throws -> JSON {
        let isBare = value == nil && !tombstone && id == nil && key == nil && time == nil && type == "event"
        guard file == nil || isBare else {
            throw NodeError(
                "bad-use",
                "--file has whole events, so it goes without --value, --tombstone, --id, --type, --key and --time")
        }
        guard value != nil || tombstone else {
            let path = file ?? "-"
            guard file != nil || isatty(0) == 0 else {
                throw NodeError(
                    "bad-use", "say what to publish: --value JSON --id ID, --file FILE, or events on standard input")
            }
            let bytes: Data
            do {
                let input = path == "-" ? .standardInput : try FileHandle(forReadingFrom: URL(filePath: path))
                bytes = try input.readToEnd() ?? Data()
            } catch {
                throw NodeError("no-file", "the file '\(path)' cannot be read", cause: error)
            }
            let name = path == "-" ? "standard input" : "'\(path)'"
            guard !bytes.isEmpty else {
                throw NodeError(
                    "bad-use", "\(name) is empty; say what to publish: --value JSON --id ID, or CloudEvents")
            }
            do {
                let parsed = try JSON(parsing: [UInt8](bytes))
                return parsed.array == nil ? .array([parsed]) : parsed
            } catch {
                throw NodeError("bad-json", "\(name) is not JSON: \(error.message)")
            }
        }
        guard !(value != nil && tombstone) else {
            throw NodeError("bad-use", "--tombstone has no data, so it goes without --value")
        }
        guard let id else {
            throw NodeError(
                "bad-use",
                "\(tombstone ? "--tombstone" : "--value") needs --id: an event has an id, so that it counts once")
        }
        guard !tombstone || key != nil else {
            throw NodeError("bad-use", "--tombstone needs --key: it removes what stands under that key")
        }
        var members: [String: JSON] = [
            "specversion": "1.0", "id": .string(id), "source": "headrace:/cli", "type": .string(type),
        ]
        if let value {
            do {
                members["data"] = try JSON(parsing: [UInt8](value.utf8))
            } catch {
                throw NodeError("bad-json", "--value is not JSON: \(error.message)")
            }
        }
        if let key { members["partitionkey"] = .string(key) }
        if let time { members["time"] = .string(time) }
        return .array([.object(members)])
    }
}

/// Prints a verdict and gives its exit code.
func finish(_ answer: JSON, _ json: Bool) throws {
    json ? Terminal.print(answer) : Terminal.verdict(answer)
    switch Verdict(rawValue: answer["verdict"]?.string ?? "") {
    case .exact?: return
    case .withinTolerance?: throw ExitCode(10)
    case .diverged?: throw ExitCode(11)
    default: throw ExitCode(12)
    }
}

struct Report: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Month by month: performance, models, retrainings and their causes.")
    @OptionGroup var common: Common
    @Argument(help: "A model's name or its beginning.") var name: String

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let answer = try await connection.ask("GET", "/v1/report/\(Connection.escape(name))") { node in
                try node.report(name)
            }
            common.json ? Terminal.print(answer) : Terminal.report(answer)
        }
    }
}

struct Lineage: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "What something came from, up to the input events: model:NAME@VERSION, prediction:ID, outcome:ID, question:ID."
    )
    @OptionGroup var common: Common
    @Argument(help: "The node.") var node: String
    @Option(name: .long, help: "Steps upstream; all when absent.") var depth: Int?

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let path = "/v1/lineage?node=\(Connection.escape(node))" + (depth.map { "&depth=\($0)" } ?? "")
            let answer = try await connection.ask("GET", path) { host in try host.lineage(node, depth: depth) }
            common.json ? Terminal.print(answer) : Terminal.lineage(answer)
        }
    }
}

struct Audit: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Rebuild a model or a prediction from the log alone and give a verdict.")
    @OptionGroup var common: Common
    @Argument(help: "model or prediction.") var kind: String
    @Argument(help: "NAME@VERSION of a model, or the id of a prediction.") var subject: String

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let path = "/v1/audit/\(Connection.escape(kind))?subject=\(Connection.escape(subject))"
            let answer = try await connection.ask("POST", path, body: []) { node in try node.audit(kind, subject) }
            try finish(answer, common.json)
        }
    }
}

struct SQL: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sql",
        abstract: "Read the projection tables: predictions, models, performance_days, drift_days, retrains.")
    @OptionGroup var common: Common
    @Argument(help: "A select statement.") var statement: String

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let answer = try await connection.ask(
                "POST", "/v1/sql", body: [UInt8](statement.utf8), contentType: "application/sql"
            ) { node in
                try node.sql(statement)
            }
            if common.json { return Terminal.print(answer) }
            Terminal.table(
                (answer["columns"]?.array ?? []).compactMap(\.string),
                (answer["rows"]?.array ?? []).map { ($0.array ?? []).map(Terminal.cell) })
            let positions = JSON.sorted(answer["asOf"]?.object ?? [:]).filter { ($0.value.int ?? 0) > 0 }
            // Several tables may be made of one topic; most have come equally far.
            var places: [String] = []
            for (key, next) in positions {
                let place = "\(key.split(separator: "|").last ?? "")@\(next.text)"
                if !places.contains(place) { places.append(place) }
            }
            print("as of " + places.joined(separator: " "))
        }
    }
}

struct Status: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "What the node is doing.")
    @OptionGroup var common: Common

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let answer = try await connection.ask("GET", "/v1/status") { node in try node.status() }
            if common.json { return Terminal.print(answer) }
            Terminal.table(
                ["what", "value"],
                JSON.sorted(answer.object ?? [:]).flatMap { key, value -> [[String]] in
                    guard let inner = value.object else { return [[key, Terminal.cell(value)]] }
                    return JSON.sorted(inner).map { ["\(key).\($0.key)", Terminal.cell($0.value)] }
                })
        }
    }
}
