import API
import Base
import CPlatform
import Catalog
import EventLog
import Features
import Foundation
import GRDB
import Lineage
import Models
import RecordFormat
import Streams
import Supervision

extension Node: NodeReading {
    package func status() throws -> JSON {
        let fold = fold.status
        // Of a fold that does not run nothing is known here.
        func known(_ value: JSON) -> JSON { fold.loaded ? value : .null }
        let folded: JSON = .object([
            "streamTime": Node.moment(fold.now), "folded": known(.int(fold.folded)),
            "emitted": known(.int(fold.emitted)), "late": known(.int(fold.late)),
            "failures": known(.int(fold.failures)), "checkpoints": known(.int(fold.checkpoints)),
            "drained": known(.bool(fold.drained)),
        ])
        let connectors = connectors.map { name, status in
            JSON.object([
                "name": .string(name), "state": .string(status.state), "done": .int(Int64(status.done)),
                "total": .int(Int64(status.total)),
                "refused": .int(Int64(status.refused)), "damagedRows": .int(Int64(status.damagedRows)),
                "through": status.through.map { .string($0.description) } ?? .null,
            ])
        }
        let keys = keys.counts
        var members: [String: JSON] = [
            "state": .string(
                failures.isEmpty ? (isStarted ? (isSettled ? "settled" : "working") : "stopped") : "degraded"),
            "failures": .array(failures.map { .string($0) }), "notices": .array(notices.map { .string($0) }),
            "events": .int(Int64(log.eventCount)),
            "subjectKeys": .object(["live": .int(Int64(keys.live)), "erased": .int(Int64(keys.erased))]),
            "fold": folded, "streams": .array(streams.map { $0.status(share?.addresses ?? [:]) }),
            "views": viewFoldStatus,
            "connectors": .array(connectors),
            "peakMemoryBytes": .int(Int64(headrace_peak_memory())),
            "data": .string(configuration.dataDirectory),
            "pid": isStarted ? .int(Int64(ProcessInfo.processInfo.processIdentifier)) : .null,
        ]
        members.merge(logStatus()) { $1 }
        return .object(members)
    }

    private func logStatus() -> [String: JSON] {
        if let kafka {
            return ["kafka": .string(kafka.configuration.bootstrap), "drift": LogReport.drift(kafka)]
        }
        guard let embedded else { return [:] }
        let log = embedded.statistics
        let recovery = embedded.recovery
        return [
            "syncs": .int(Int64(log.syncs)), "bytesWritten": .int(Int64(log.bytesWritten)),
            "headHash": .string(log.headHash.hex),
            "damaged": .array(
                (log.damaged.map(\.description) + log.rotten + damageFound.withLock { $0 }).reduce(into: []) {
                    if !$0.contains(.string($1)) { $0.append(.string($1)) }
                }),
            "recovered": .object([
                "truncatedBytes": .int(recovery.truncatedBytes),
                "damaged": .array(recovery.damaged.map { .string($0.description) }),
                "rebuiltIndexes": .array(recovery.rebuiltIndexes.map { .string($0) }),
            ]),
        ]
    }

    /// Stream time; null before the first event.
    static func moment(_ time: Instant) -> JSON { time == .distantPast ? .null : .string(time.description) }

    /// Records that stand in a topic, over all its partitions.
    func records(of topic: TopicDefinition) throws -> Int64 {
        try (0..<topic.partitions).reduce(0) { try $0 + Int64(log.offsets(TopicPartition(topic.name, $1)).count) }
    }

    package func topicList() throws -> JSON {
        var list: [JSON] = []
        for topic in gateway.allTopics {
            let events = try records(of: topic)
            list.append(
                .object([
                    "name": .string(topic.name), "partitions": .int(Int64(topic.partitions)), "records": .int(events),
                    "owner": gateway.isReserved(topic.name) ? "platform" : "workspace",
                    "description": .string(topic.description),
                ]))
        }
        return .object(["topics": .array(list)])
    }

    /// The model of a report: by its name, or by a beginning that only one has.
    private func model(_ name: String) throws -> ModelDefinition {
        let models = try registry.all(ModelDefinition.kind).map { try ModelDefinition($0.definition) }
        let found =
            models.filter { $0.name == name }.isEmpty
            ? models.filter { $0.name.hasPrefix(name) } : models.filter { $0.name == name }
        guard found.count == 1 else {
            throw NodeError(
                "unknown-report",
                "'\(name)' names \(found.count) models; there are \(models.isEmpty ? "none" : models.map(\.name).joined(separator: ", "))"
            )
        }
        return found[0]
    }

    package func report(_ name: String) throws -> JSON {
        let model = try model(name)
        var report =
            try views.read {
                try PerformanceReport.make($0, model: model.name, question: model.question, span: model.reportMonths)
            }.object ?? [:]
        var last: JSON?
        try log.forEachEvent(TopicPartition("headrace.runs", 0)) { event in
            last = event.data.flatMap { try? JSON(parsing: $0) } ?? last
            return true
        }
        report["events"] = last?["events"] ?? .int(Int64(log.eventCount))
        report["seconds"] = last?["seconds"] ?? .null
        report["peakMemoryBytes"] = last?["peakMemoryBytes"] ?? .int(Int64(headrace_peak_memory()))
        report["asOf"] = Node.moment(fold.status.now)
        return .object(report)
    }

    package func lineage(_ node: String, depth: Int?) throws -> JSON {
        try LineageGraph.upstream(of: node, depth: depth, log: log, database: views).json
    }

    package func sql(_ statement: String) throws -> JSON {
        let verb = statement.drop { $0.isWhitespace || $0 == "(" }.prefix { $0.isLetter }.lowercased()
        guard ["select", "with", "values", "explain"].contains(verb) else {
            throw NodeError(
                "read-only",
                "only statements that read are taken (select, with, values, explain); the tables are folded from the log"
            )
        }
        // A connection of its own, so that stopping a statement that runs too long touches nobody else.
        var settings = Configuration()
        settings.readonly = true
        do {
            let reader = try DatabaseQueue(path: configuration.viewsFile, configuration: settings)
            let alarm = DispatchWorkItem { reader.interrupt() }
            DispatchQueue.global().asyncAfter(deadline: .now() + Limits.sqlSeconds, execute: alarm)
            defer { alarm.cancel() }
            return try reader.read { try Self.answer(statement, $0) }
        } catch let error as DatabaseError {
            let message =
                error.resultCode == .SQLITE_INTERRUPT
                ? "the statement ran longer than \(Int(Limits.sqlSeconds)) s and was stopped"
                : (error.resultCode == .SQLITE_MISUSE ? "one statement at a time, please" : error.message ?? "\(error)")
            throw NodeError("bad-sql", message)
        }
    }

    private static func answer(_ statement: String, _ database: Database) throws -> JSON {
        let prepared = try database.makeStatement(sql: statement)
        guard prepared.isReadonly else {
            throw NodeError("read-only", "only statements that read are taken; the tables are folded from the log")
        }
        var rows: [JSON] = []
        let cursor = try Row.fetchCursor(prepared)
        while let row = try cursor.next() {
            guard rows.count < Limits.sqlRows else {
                throw NodeError("too-many-rows", "an answer may have \(Limits.sqlRows) rows; add a LIMIT")
            }
            rows.append(.array(row.databaseValues.map(Node.json)))
        }
        var position: [String: JSON] = [:]
        for row in try Row.fetchAll(database, sql: "SELECT name, next FROM projection_positions ORDER BY name") {
            position[row[0]] = .int(row[1])
        }
        return .object([
            "columns": .array(prepared.columnNames.map { .string($0) }), "rows": .array(rows),
            "asOf": .object(position),
        ])
    }

    private static func json(_ value: DatabaseValue) -> JSON {
        switch value.storage {
        case .null: .null
        case .int64(let number): .int(number)
        case .double(let number): .double(number)
        case .string(let text): .string(text)
        case .blob(let data): .string([UInt8](data).hex)
        }
    }

    package func audit(_ kind: String, _ subject: String) throws -> JSON {
        let audit = Audit(log: log, workspace: try compile())
        switch kind {
        case "prediction": return try audit.prediction(subject).json
        case "model":
            let parts = subject.split(separator: "@")
            guard parts.count == 2, let version = Int64(parts[1]) else {
                throw NodeError("bad-subject", "a model is named NAME@VERSION, not '\(subject)'")
            }
            return try audit.model(String(parts[0]), version: version).json
        default: throw NodeError("bad-subject", "models and predictions can be audited, not '\(kind)'")
        }
    }

    package func replay(to: String?, processor: String?) throws -> JSON {
        let limit = try Node.limit(to)
        if let processor, processor != WorkspaceTopology.name {
            return try replay(stream: processor, to: limit, into: nil, compares: true)
        }
        let workspace = try compile()
        return try Audit(log: log, workspace: workspace).everything(to: limit) { try heldState(workspace, $0) }.json
    }

    /// The state in service: the fold's where it runs, else what it stored last; nil where there is none.
    private func heldState(_ workspace: CompiledWorkspace, _ bucket: StateBucket?) throws -> HeldState? {
        // A fold that has stopped has nothing to compare with; why it did stands in the status.
        if isStarted { return try? fold.askBlocking { try HeldState($0, bucket: bucket) } }
        guard FileManager.default.fileExists(atPath: configuration.stateFile) else { return nil }
        let runner = try TopologyRunner(
            topology: try WorkspaceTopology(workspace).topology, derived: WorkspaceTopology.derived, log: log,
            database: try StateDatabase(path: configuration.stateFile, isKept: true),
            sink: ComparingSink(log: log, ends: [:]) { _ in })
        return try HeldState(runner, bucket: bucket)
    }

    package func topology() throws -> JSON {
        let topology = try WorkspaceTopology(try compile()).topology
        var members = topology.json.object ?? [:]
        let others = streams.map(\.topology.description)
        members["streams"] = .array(others.map(\.json))
        members["text"] = .string(([topology.text] + others.map(\.text)).joined(separator: "\n\n"))
        members["mermaid"] = .string(topology.mermaid)
        members["pictures"] = .object(Dictionary(uniqueKeysWithValues: others.map { ($0.name, .string($0.mermaid)) }))
        return .object(members)
    }

    package func definitions() throws -> JSON {
        let list = registry.entries.values.sorted { $0.definition.key < $1.definition.key }.map { entry in
            JSON.object([
                "kind": .string(entry.definition.kind), "name": .string(entry.definition.name),
                "version": .int(entry.version),
                "position": .string(entry.position), "owner": entry.platform ? "platform" : "workspace",
            ])
        }
        return .object(["definitions": .array(list)])
    }

    package func plan(_ definitions: JSON) throws -> JSON { try plan(try Self.definitions(in: definitions)) }

    static func definitions(in definitions: JSON) throws -> [Definition] {
        let list = try (definitions["definitions"]?.array ?? []).map { item in
            guard let kind = item["kind"]?.string, let name = item["name"]?.string, let body = item["body"] else {
                throw CatalogError("bad-definition", "a definition has 'kind', 'name' and 'body'")
            }
            let lines = (item["lines"]?.object ?? [:]).compactMapValues { $0.int.map { Int(clamping: $0) } }
            return Definition(kind: kind, name: name, body: body, place: item["place"]?.string ?? "", lines: lines)
        }
        guard !list.isEmpty else { throw CatalogError("bad-definition", "'definitions' is an empty list") }
        return list
    }

    package func apply(_ definitions: JSON) throws -> JSON {
        let changes = try apply(try Self.definitions(in: definitions))
        var members: [String: JSON] = [
            "changes": .array(changes.map { .object(["definition": .string($0.0), "change": .string($0.1.rawValue)]) })
        ]
        if isStarted, changes.contains(where: { $0.1 != .unchanged }) {
            members["note"] =
                "feature views are filled from the log and live when they have caught up (headrace features VIEW); entities, services, derived views and new topics are in force now, other changes of topics from the next start"
        }
        return .object(members)
    }

    package func readiness() -> (ready: Bool, reason: String) {
        if let failure = failures.first { return (false, failure) }
        if let outage = kafka?.outage { return (false, outage.message) }
        if configuration.isWorker {
            guard share?.hasJoined == true else { return (false, "the node has not been given its tasks yet") }
            guard streams.allSatisfy({ $0.folds.allSatisfy(\.status.loaded) }) else {
                return (false, "a task is still loading its state")
            }
            return (true, "the tasks of the streams that are here are folded")
        }
        guard fold.status.loaded else { return (false, "the fold is still loading its state") }
        return (true, "the log takes events and the fold runs")
    }
}
