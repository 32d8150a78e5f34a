import API
import Base
import Catalog
import Datasets
import EventLog
import Features
import Foundation
import RecordFormat

/// Datasets: made from the log, kept in chunks, known by what the log says of them.
extension Node {
    static let datasets = "headrace.datasets"

    func chunkStore() throws -> ChunkStore {
        try chunks.withLock { known in
            if let known { return known }
            let store = try ChunkStore(DiskVolume(configuration.dataDirectory + "/datasets"))
            known = store
            return store
        }
    }

    /// Every version that was not removed, oldest first.
    func manifests() throws -> [DatasetManifest] { try DatasetHistory(log).manifests }

    /// The version that `NAME@VERSION` names; the newest of `NAME`.
    func manifest(_ reference: String) throws -> DatasetManifest {
        let parts = reference.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let history = try DatasetHistory(log)
        let versions = history.manifests.filter { $0.name == parts[0] }
        if history.removed.contains(reference) {
            throw DatasetsError("unknown-dataset", "\(reference) was removed; '\(Node.datasets)' tells what it was")
        }
        guard parts.count < 2 || Int64(parts[1]) != nil else {
            throw DatasetsError("bad-name", "a version is named NAME@NUMBER, not '\(reference)'")
        }
        guard let found = parts.count == 2 ? versions.first(where: { $0.version == Int64(parts[1]) }) : versions.last
        else {
            throw DatasetsError(
                "unknown-dataset",
                versions.isEmpty
                    ? "there is no dataset '\(parts[0])'"
                    : "'\(parts[0])' has no version \(parts[1]); it has \(versions.map { String($0.version) }.joined(separator: ", "))"
            )
        }
        return found
    }

    package func createDataset(_ json: JSON) throws -> JSON {
        let request = try DatasetRequest(json)
        var build = DatasetBuild(log: log, workspace: try compile(), catalog: try featureCatalog(), request: request)
        let made = try build.run()
        var table = made.table
        if let split = request.split {
            table.columns.append(
                try split.parts(table, id: DatasetBuild.idColumn, time: DatasetBuild.timeColumn, seed: request.seed))
        }
        var balance: [String: JSON] = [:]
        var notices = build.notices
        for name in made.labels {
            guard let column = table[name],
                let (counts, remarks) = ClassBalance.check(column, parts: table[DatasetSplit.column])
            else { continue }
            balance[name] = counts
            notices += remarks
        }
        var definitions = made.plan.versions.map { "view \($0.view)@\($0.version)" }
        if let service = request.service {
            definitions.insert("service \(service)@\(made.plan.serviceVersion ?? 1)", at: 0)
        }
        let (store, rows) = (try chunkStore(), table)
        return try store.holding {
            let (recipe, statistics) = try keep(rows, store)
            return try announce { version in
                DatasetManifest(
                    name: request.name, version: version, kind: .rows, request: request.json, definitions: definitions,
                    positions: Dictionary(uniqueKeysWithValues: build.ends.map { ($0.key.description, $0.value) }),
                    rows: Int64(rows.count), schema: rows.schema,
                    statistics: statistics, balance: .object(balance),
                    notices: notices, recipe: recipe)
            }
        }
    }

    /// Keeps a table's rows, and looks at its columns meanwhile.
    private func keep(_ table: DatasetTable, _ store: ChunkStore) throws -> (ChunkRecipe, JSON) {
        let kept = Monitor<Result<ChunkRecipe, DatasetsError>?>(nil)
        let statistics = Monitor(JSON.null)
        DispatchQueue.concurrentPerform(iterations: 2) { turn in
            if turn == 0 {
                let result = Result { () throws(DatasetsError) in try store.keep(table) }
                kept.withLock { $0 = result }
            } else {
                let found = ColumnStatistics.json(table)
                statistics.withLock { $0 = found }
            }
        }
        guard let recipe = try kept.withLock({ $0 })?.get() else {
            throw DatasetsError("internal", "the rows were not kept", fault: .headrace)
        }
        return (recipe, statistics.withLock { $0 })
    }

    /// Logs a version, or finds that the newest says the same; what it names is on disk by then.
    private func announce(_ make: (Int64) -> DatasetManifest) throws -> JSON {
        try announcing.withLock { _ in
            let name = make(1).name
            let history = try DatasetHistory(log)
            let newest = history.manifests.last { $0.name == name }
            // A number is used once, whatever was removed.
            let manifest = make((history.newest[name] ?? 0) + 1)
            if let newest, newest.kind != manifest.kind {
                throw DatasetsError(
                    "wrong-kind",
                    "'\(name)' has \(newest.kind.rawValue), not \(manifest.kind.rawValue); give these a name of their own"
                )
            }
            if let newest, newest.isSame(as: manifest) {
                return .object(["dataset": newest.json, "isNew": .bool(false)])
            }
            _ = try log.append(
                LogAppend(
                    principal: "node",
                    events: [
                        (
                            Node.datasets, 0,
                            NewEvent(
                                id: "dataset:\(manifest.reference)", source: "headrace:/datasets",
                                type: "dataset.created", time: Instant.wallClock(), key: [UInt8](name.utf8),
                                data: manifest.json.canonical)
                        )
                    ]))
            return .object(["dataset": manifest.json, "isNew": .bool(true)])
        }
    }

    package func datasetList() throws -> JSON {
        .object([
            "datasets": .array(
                try manifests().map { manifest in
                    .object([
                        "name": .string(manifest.name), "version": .int(manifest.version),
                        "kind": .string(manifest.kind.rawValue), "rows": .int(manifest.rows),
                        "bytes": .int(manifest.bytes), "digest": .string(manifest.digest.hex),
                        "isPinned": .bool(log.pins.contains { $0.name == "dataset:\(manifest.reference)" }),
                    ])
                })
        ])
    }

    package func dataset(_ reference: String) throws -> JSON { try manifest(reference).json }

    package func datasetDifference(_ left: String, _ right: String) throws -> JSON {
        let (before, after) = (try manifest(left), try manifest(right))
        guard before.kind == after.kind else {
            throw DatasetsError(
                "bad-request", "\(left) has \(before.kind.rawValue) and \(right) has \(after.kind.rawValue)")
        }
        let store = try chunkStore()
        let id = before.kind == .files ? DatasetFiles.path : DatasetBuild.idColumn
        var members =
            DatasetDifference.json(try store.table(of: before), try store.table(of: after), id: id).object ?? [:]
        members["from"] = .string(before.reference)
        members["to"] = .string(after.reference)
        members["isSame"] = .bool(before.digest == after.digest)
        return .object(members)
    }

    /// Reads everything of a version and compares it with its digests.
    package func verifyDataset(_ reference: String) throws -> JSON {
        let manifest = try manifest(reference)
        let store = try chunkStore()
        let table = try store.table(of: manifest)
        if manifest.kind == .files { try DatasetFiles.verify(table, store) }
        return .object([
            "dataset": .string(manifest.reference), "verdict": "INTACT", "rows": .int(Int64(table.count)),
            "digest": .string(manifest.digest.hex),
        ])
    }

    /// Writes a version to a file of the node's machine, or its files to a folder.
    package func exportDataset(_ reference: String, format: String, to path: String) throws -> JSON {
        let manifest = try manifest(reference)
        let store = try chunkStore()
        guard path.hasPrefix("/") else { throw DatasetsError("bad-request", "'\(path)' is no absolute path") }
        guard !FileManager.default.fileExists(atPath: path) else {
            throw DatasetsError("not-empty", "'\(path)' is there already; nothing is written over it")
        }
        let table = try store.table(of: manifest)
        if format == "files" {
            guard manifest.kind == .files else {
                throw DatasetsError(
                    "bad-format", "\(manifest.reference) has rows and no files; write parquet, csv, jsonl or arrow")
            }
            let bytes = try DatasetFiles.write(table, store, to: path)
            return .object(["dataset": .string(manifest.reference), "path": .string(path), "bytes": .int(bytes)])
        }
        let bytes = try TableFormat.bytes(
            table, format,
            metadata: [("headrace.dataset", manifest.reference), ("headrace.digest", manifest.digest.hex)])
        try Node.export(bytes, to: path)
        return .object([
            "dataset": .string(manifest.reference), "path": .string(path), "bytes": .int(Int64(bytes.count)),
        ])
    }

    /// A file appears whole or not at all, and over nothing: under a name of its own first, then linked, which fails where
    /// something is.
    private static func export(_ bytes: [UInt8], to path: String) throws {
        let part = "\(path).\(UUID().uuidString).part"
        defer { try? FileManager.default.removeItem(atPath: part) }
        do {
            try Data(bytes).write(to: URL(filePath: part), options: .withoutOverwriting)
            try FileManager.default.linkItem(atPath: part, toPath: path)
        } catch {
            guard !FileManager.default.fileExists(atPath: path) else {
                throw DatasetsError("not-empty", "'\(path)' is there already; nothing is written over it")
            }
            throw DatasetsError("write-failed", "'\(path)' cannot be written", cause: error, fault: .world)
        }
    }

    /// Holds every event that a version was made from against retention and compaction.
    package func pinDataset(_ reference: String) throws -> JSON {
        let manifest = try manifest(reference)
        guard log.capabilities.contains(.pins) else {
            throw DatasetsError(
                "no-pins",
                "a log on Kafka holds nothing against its own retention; declare 'retention' as long as needed")
        }
        var ranges: [TopicPartition: Range<Int64>] = [:]
        for (place, end) in manifest.positions {
            guard let place = TopicPartition(parsing: place), place.partition < log.partitions(of: place.topic) else {
                continue
            }
            let range = try log.offsets(place)
            let held = range.lowerBound..<max(range.lowerBound, min(end, range.upperBound))
            if !held.isEmpty { ranges[place] = held }
        }
        let name = "dataset:\(manifest.reference)"
        if !ranges.isEmpty, !log.pins.contains(where: { $0.name == name }) {
            try log.pin(Pin(name: name, ranges: ranges))
        }
        return .object(["dataset": .string(manifest.reference), "pin": .string(name)])
    }

    /// Takes a folder of files as a version of a dataset.
    package func addFiles(_ name: String, directory: String) throws -> JSON {
        let name = try DatasetRequest.checked(name)
        guard directory.hasPrefix("/") else { throw DatasetsError("bad-request", "'\(directory)' is no absolute path") }
        let store = try chunkStore()
        return try store.holding {
            let (table, notices) = try DatasetFiles.read(directory, store)
            let (recipe, statistics) = try keep(table, store)
            return try announce { version in
                DatasetManifest(
                    name: name, version: version, kind: .files, request: .object(["name": .string(name)]),
                    definitions: [], positions: [:], rows: Int64(table.count), schema: table.schema,
                    statistics: statistics, balance: .object([:]),
                    notices: notices, recipe: recipe)
            }
        }
    }
}
