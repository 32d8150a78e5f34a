import ArgumentParser
import Base
import Foundation
import Node

/// Datasets: versions of rows with features as of each, and of files.
struct DatasetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dataset", abstract: "Training data from the log: point-in-time correct, versioned, exact again.",
        subcommands: [
            CreateDataset.self, AddFiles.self, ListDatasets.self, ShowDataset.self, DiffDatasets.self,
            ExportDataset.self,
            VerifyDataset.self, PinDataset.self, RemoveDataset.self,
        ])

    /// Asks with a body of JSON.
    static func ask(
        _ common: Common, _ path: String, _ body: JSON, _ direct: (Node) throws -> JSON
    ) async throws -> JSON {
        let connection = try common.connection()
        defer { connection.close() }
        return try await connection.ask("POST", path, body: body.canonical) { try direct($0) }
    }

    static func absolute(_ path: String) -> String {
        path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
    }

    static func report(_ answer: JSON) {
        let dataset = answer["dataset"] ?? .null
        let name = "\(dataset["name"]?.string ?? "")@\(dataset["version"]?.int ?? 0)"
        let columns = dataset["schema"]?.array?.count ?? 0
        print(
            answer["isNew"]?.bool == true
                ? "\(name): \(dataset["rows"]?.int ?? 0) rows, \(columns) columns, digest \(dataset["digest"]?.string ?? "")"
                : "\(name) says the same already: digest \(dataset["digest"]?.string ?? "")")
        for notice in dataset["notices"]?.array ?? [] { print("note: \(notice.string ?? "")") }
    }
}

struct CreateDataset: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Make a version: a row for each label event, with features as of its time.",
        discussion: """
            A row knows what was appended before its label event, at or before its event time; --event-time-only takes event times \
            alone. The members of a label event's data become columns beside event_id, event_time, the keys, and \
            VIEW__FEATURE for each feature.
            """)
    @OptionGroup var common: Common
    @Argument(help: "The dataset's name.") var name: String
    @Option(name: .long, help: "The feature service.") var service: String?
    @Option(name: .long, help: "A feature as VIEW:FEATURE, or a VIEW; may be repeated.") var feature: [String] = []
    @Option(name: .long, help: "The topic whose events are the rows.") var labels: String?
    @Option(
        name: .long,
        help: "A CSV or JSON Lines file of rows instead: the keys and event_timestamp; other columns come along.")
    var entities: String?
    @Option(name: .long, help: "Rows from this RFC 3339 time on.") var from: String?
    @Option(name: .long, help: "Rows before this RFC 3339 time.") var to: String?
    @Option(name: .long, help: "A member of the label events that becomes a column; may be repeated; all when absent.")
    var field: [String] = []
    @Flag(name: .long, help: "Only event time counts, not what was known.") var eventTimeOnly = false
    @Option(name: .long, help: "The share of rows to take, such as 0.1.") var sample: Double?
    @Option(name: .long, help: "random:0.8,0.1,0.1, group:COLUMN:0.8,0.2 or time:2013-10-01T00:00:00Z.") var split:
        String?
    @Option(name: .long, help: "Seed of sample and split.") var seed = 0

    func run() async throws {
        try await reporting {
            var members: [String: JSON] = ["name": .string(name)]
            members["service"] = service.map { .string($0) }
            if !feature.isEmpty { members["features"] = .array(feature.map { .string($0) }) }
            members["labels"] = labels.map { .string($0) }
            members["entities"] = try entities.map { try EntityRows.read($0) }
            members["from"] = from.map { .string($0) }
            members["to"] = to.map { .string($0) }
            if !field.isEmpty { members["fields"] = .array(field.map { .string($0) }) }
            if eventTimeOnly { members["eventTimeOnly"] = true }
            members["sample"] = sample.map { .double($0) }
            members["split"] = split.map { .string($0) }
            if seed != 0 { members["seed"] = .int(Int64(seed)) }
            let asked = JSON.object(members)
            let answer = try await DatasetCommand.ask(common, "/v1/datasets", asked) { try $0.createDataset(asked) }
            if common.json { return Terminal.print(answer) }
            DatasetCommand.report(answer)
        }
    }
}

struct AddFiles: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add", abstract: "Take a folder of files (images, audio, text) as a version.")
    @OptionGroup var common: Common
    @Argument(help: "The dataset's name.") var name: String
    @Argument(help: "The folder, on the node's machine.") var directory: String

    func run() async throws {
        try await reporting {
            let path = DatasetCommand.absolute(directory)
            let asked = JSON.object(["name": .string(name), "directory": .string(path)])
            let answer = try await DatasetCommand.ask(common, "/v1/datasets/files", asked) {
                try $0.addFiles(name, directory: path)
            }
            if common.json { return Terminal.print(answer) }
            DatasetCommand.report(answer)
        }
    }
}

struct ListDatasets: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "All versions.")
    @OptionGroup var common: Common

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let answer = try await connection.ask("GET", "/v1/datasets") { try $0.datasetList() }
            if common.json { return Terminal.print(answer) }
            Terminal.table(
                ["dataset", "kind", "rows", "bytes", "pinned", "digest"],
                (answer["datasets"]?.array ?? []).map { dataset in
                    ["\(dataset["name"]?.string ?? "")@\(dataset["version"]?.int ?? 0)"]
                        + ["kind", "rows", "bytes", "isPinned"].map { Terminal.cell(dataset[$0] ?? .null) }
                        + [String((dataset["digest"]?.string ?? "").prefix(16))]
                })
        }
    }
}

struct ShowDataset: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "What a version was made of, and what its columns look like.")
    @OptionGroup var common: Common
    @Argument(help: "NAME@VERSION, or NAME for the newest.") var dataset: String

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let answer = try await connection.ask("GET", "/v1/datasets/" + Connection.escape(dataset)) {
                try $0.dataset(dataset)
            }
            if common.json { return Terminal.print(answer) }
            print("\(answer["name"]?.string ?? "")@\(answer["version"]?.int ?? 0): \(answer["rows"]?.int ?? 0) rows")
            print("made of: " + (answer["definitions"]?.array ?? []).compactMap(\.string).joined(separator: ", "))
            let asked = JSON.sorted(answer["request"]?.object ?? [:]).filter { $0.key != "name" }
            if !asked.isEmpty {
                print("asked: " + asked.map { "\($0.key) \($0.value.string ?? $0.value.text)" }.joined(separator: ", "))
            }
            for (label, parts) in JSON.sorted(answer["balance"]?.object ?? [:]) {
                for (part, counts) in JSON.sorted(parts.object ?? [:]) {
                    let list = JSON.sorted(counts.object ?? [:]).map { "\($0.key) \($0.value.int ?? 0)" }
                    print("\(label) in \(part): \(list.joined(separator: ", "))")
                }
            }
            let positions = JSON.sorted(answer["positions"]?.object ?? [:])
            if !positions.isEmpty {
                print("read to: " + positions.map { "\($0.key)@\($0.value.int ?? 0)" }.joined(separator: ", "))
            }
            print("digest: \(answer["digest"]?.string ?? "")")
            for notice in answer["notices"]?.array ?? [] { print("note: \(notice.string ?? "")") }
            let members = ["name", "type", "missing", "distinct", "min", "p50", "mean", "max"]
            Terminal.table(
                members,
                (answer["statistics"]?.array ?? []).map { column in
                    members.map { Terminal.cell(column[$0] ?? .null) }
                })
        }
    }
}

struct DiffDatasets: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "diff", abstract: "What differs between two versions: columns, rows, statistics.")
    @OptionGroup var common: Common
    @Argument(help: "NAME@VERSION.") var before: String
    @Argument(help: "NAME@VERSION.") var after: String

    func run() async throws {
        try await reporting {
            let connection = try common.connection()
            defer { connection.close() }
            let path = "/v1/datasets/\(Connection.escape(before))/diff/\(Connection.escape(after))"
            let answer = try await connection.ask("GET", path) { try $0.datasetDifference(before, after) }
            if common.json { return Terminal.print(answer) }
            if answer["isSame"]?.bool == true { return print("the same, to the bit") }
            for kind in ["added", "removed", "changed"] {
                let columns = (answer["schema"]?[kind]?.array ?? []).compactMap(\.string)
                if !columns.isEmpty { print("columns \(kind): \(columns.joined(separator: ", "))") }
                let rows = answer["rows"]?[kind]
                let first = (rows?["first"]?.array ?? []).prefix(3).compactMap(\.string)
                print(
                    "rows \(kind): \(rows?["count"]?.int ?? 0)"
                        + (first.isEmpty
                            ? ""
                            : " (\(first.joined(separator: ", "))\((rows?["count"]?.int ?? 0) > Int64(first.count) ? ", …" : ""))")
                )
            }
            let values = JSON.sorted(answer["values"]?.object ?? [:]).map { "\($0.key) \($0.value.int ?? 0)" }
            if !values.isEmpty { print("values changed: " + values.joined(separator: ", ")) }
            Terminal.table(
                ["column", "missing before", "after", "mean before", "after"],
                (answer["statistics"]?.array ?? []).map { column in
                    [column["name"]?.string ?? ""]
                        + ["missing", "mean"].flatMap { member in
                            ["before", "after"].map { Terminal.cell(column[$0]?[member] ?? .null) }
                        }
                })
        }
    }
}

struct ExportDataset: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Write a version to a file, or its files to a folder.")
    @OptionGroup var common: Common
    @Argument(help: "NAME@VERSION, or NAME for the newest.") var dataset: String
    @Option(name: .long, help: "parquet, arrow, csv, jsonl, or files.") var format = "parquet"
    @Option(name: .long, help: "The file or folder, on the node's machine; it must not be there yet.") var to: String?

    func run() async throws {
        try await reporting {
            let end = format == "files" ? "" : ".\(format)"
            let path = DatasetCommand.absolute(
                to ?? dataset.replacingOccurrences(of: "@", with: "-") + end)
            let asked = JSON.object(["dataset": .string(dataset), "format": .string(format), "path": .string(path)])
            let answer = try await DatasetCommand.ask(common, "/v1/datasets/export", asked) {
                try $0.exportDataset(dataset, format: format, to: path)
            }
            if common.json { return Terminal.print(answer) }
            print("\(answer["dataset"]?.string ?? ""): \(answer["bytes"]?.int ?? 0) bytes in \(path)")
        }
    }
}

struct VerifyDataset: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Read everything of a version and compare it with its digests.")
    @OptionGroup var common: Common
    @Argument(help: "NAME@VERSION, or NAME for the newest.") var dataset: String

    func run() async throws {
        try await reporting {
            let asked = JSON.object(["dataset": .string(dataset)])
            let answer = try await DatasetCommand.ask(common, "/v1/datasets/verify", asked) {
                try $0.verifyDataset(dataset)
            }
            if common.json { return Terminal.print(answer) }
            print("\(answer["dataset"]?.string ?? ""): \(answer["verdict"]?.string ?? "")")
        }
    }
}

struct PinDataset: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pin", abstract: "Hold the events a version was made from against retention and compaction.",
        discussion: "`headrace log unpin dataset:NAME@VERSION` gives them free again.")
    @OptionGroup var common: Common
    @Argument(help: "NAME@VERSION, or NAME for the newest.") var dataset: String

    func run() async throws {
        try await reporting {
            let asked = JSON.object(["dataset": .string(dataset)])
            let answer = try await DatasetCommand.ask(common, "/v1/datasets/pin", asked) { try $0.pinDataset(dataset) }
            if common.json { return Terminal.print(answer) }
            print("\(answer["dataset"]?.string ?? "") is held by the pin \(answer["pin"]?.string ?? "")")
        }
    }
}

struct RemoveDataset: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Take a version away, and free the space of what no other version is made of.",
        discussion: "Its number is not used again, and the log keeps what it was. A pinned version stays.")
    @OptionGroup var common: Common
    @Argument(help: "NAME@VERSION.") var dataset: String

    func run() async throws {
        try await reporting {
            let asked = JSON.object(["dataset": .string(dataset)])
            let answer = try await DatasetCommand.ask(common, "/v1/datasets/remove", asked) {
                try $0.removeDataset(dataset)
            }
            if common.json { return Terminal.print(answer) }
            print("\(answer["dataset"]?.string ?? "") is removed; \(answer["freed"]?.int ?? 0) bytes are free")
            if let notice = answer["notice"]?.string { print("note: \(notice)") }
        }
    }
}
