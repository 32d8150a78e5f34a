import Base
import Catalog
import EventLog
import Foundation
import Streams

/// Folding a stream again from the log: to compare, to keep the state, or to let a changed stream take over.
extension Node {
    func streamService(_ name: String) throws -> StreamService {
        guard let service = streams.first(where: { $0.topology.name == name }) else {
            let known = streams.map(\.topology.name).joined(separator: ", ")
            throw NodeError(
                "unknown-stream",
                "there is no stream '\(name)' in this program; there are: \(known.isEmpty ? "none" : known)")
        }
        return service
    }

    /// Folds a stream again from the beginning and compares what it emits, and its state at every midnight of stream time,
    /// with what the log holds.
    /// - Parameters:
    ///   - directory: a folder that keeps the rebuilt state; what is there already is folded on. Nobody else writes there.
    ///   - compares: false only folds.
    package func replay(
        stream name: String, to limit: FoldLimit, into directory: String?, compares: Bool
    ) throws -> JSON {
        let service = try streamService(name)
        if let directory {
            guard
                URL(fileURLWithPath: directory).standardized
                    != URL(fileURLWithPath: configuration.streamsDirectory).standardized
            else {
                throw NodeError("in-service", "\(directory) holds the state in service; give a folder of its own")
            }
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        }
        let audit = StreamAudit(log: log, service: service, directory: directory, compares: compares)
        let result = try audit.everything(to: limit) { try heldState(service, $0, $1) }
        guard !compares else { return result.json }
        var members = result.json.object ?? [:]
        for name in ["verdict", "reason"] { members[name] = nil }
        members["into"] = directory.map { JSON.string($0) }
        return .object(members)
    }

    /// What a table holds in state that a replay kept.
    package func view(stream name: String, view: String, key: String, state directory: String) throws -> JSON {
        let service = try streamService(name)
        for number in 0..<service.tasks {
            let file = StreamService.stateFile(name, number, in: directory)
            guard FileManager.default.fileExists(atPath: file) else {
                throw NodeError(
                    "no-state", "\(file) is not there; `replay --processor \(name) --into \(directory)` makes it")
            }
            let runner = try TopologyRunner(
                topology: service.build(), task: service.task(number), derived: [], log: log,
                database: try StateDatabase(path: file, isKept: true), sink: DiscardingSink())
            if let found = try Self.read(runner, view, key) {
                return found.json(name, view, key, asOf: runner.now)
            }
        }
        throw Self.unknownKey(name, view, key, nil)
    }

    /// Lets a changed stream take over from the one in force: it folds history without a word up to where the other came to
    /// rest, and is in force from there on. The log says so in one event; what is on the disk is only faster than folding again.
    package func swap(stream name: String) throws -> JSON {
        let begun = Date()
        let service = try streamService(name)
        guard !service.withheld.isEmpty, let known = registry.entries[Self.key(of: service)] else {
            throw NodeError(
                "unchanged",
                "the stream '\(name)' is the one in force already; whoever changed a closure in it gives the builder another `version:`"
            )
        }
        let old = known.definition.body
        guard old["tasks"]?.int == Int64(service.tasks), old["sharing"] == service.body["sharing"] else {
            throw NodeError(
                "other-tasks",
                "the stream '\(name)' runs in \(service.tasks) tasks and the one in force in \(old["tasks"]?.int ?? 1), or shares its keys in another way: its state and its outputs stand elsewhere; give it a new name and new outputs"
            )
        }
        let identity = StreamTopology.identity(old, readings: Self.readings(old, registry))
        let takeovers = try (0..<service.tasks).map { try rest(service, $0, old, identity) }
        let generation = (old[StreamTakeover.member].flatMap { StreamTakeover($0) }?.generation ?? 1) + 1
        // One that never emitted anything leaves nothing to take over.
        let isEmpty = takeovers.allSatisfy { $0.inputs.isEmpty }
        let since = isEmpty ? nil : StreamTakeover(generation: generation, tasks: takeovers)
        let definition = service.topology.definition(
            tasks: service.tasks, reads: service.body["reads"]?.object ?? [:], since: since)
        var folded: Int64 = 0
        let keepsState = since != nil && !log.capabilities.contains(.transactions)
        if since != nil {
            for number in 0..<service.tasks {
                folded += try foldToTakeover(service, number, definition.body, keeps: keepsState)
            }
        }
        // A node that was forgotten may have folded on meanwhile.
        guard try (0..<service.tasks).map({ try rest(service, $0, old, identity) }) == takeovers else {
            throw NodeError(
                "not-at-rest",
                "the stream in force went on while the changed one was folded: some node still runs the program that has it; stop it, and swap then",
                fault: .world)
        }
        try append(
            service.withheld.map { $0.kind == StreamTopology.kind ? definition : $0 }, platform: true)
        try declareTopics()
        for number in 0..<service.tasks {
            let file = StreamService.stateFile(name, number, in: configuration.streamsDirectory)
            // From here on the old state is nobody's; whatever a crash leaves of this is folded again from the log.
            for suffix in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: file + suffix) }
            guard keepsState else { continue }
            let next = file + Self.prepared
            if FileManager.default.fileExists(atPath: next + "-wal") {
                try FileManager.default.moveItem(atPath: next + "-wal", toPath: file + "-wal")
            }
            try FileManager.default.moveItem(atPath: next, toPath: file)
        }
        return .object([
            "stream": .string(name), "generation": .int(Int64(since == nil ? 1 : generation)),
            "tasks": .int(Int64(service.tasks)), "eventsFolded": .int(folded),
            "seconds": .double(Date().timeIntervalSince(begun)),
            "from": .array(
                takeovers.map { takeover in
                    .object(
                        Dictionary(
                            takeover.inputs.map { ($0.key.description, JSON.int($0.value)) }, uniquingKeysWith: { $1 }))
                }),
        ])
    }

    /// Behind the name of a state file that is not in service yet.
    private static let prepared = ".next"

    private static func key(of service: StreamService) -> String {
        service.topology.definition(tasks: service.tasks).key
    }

    /// Where a task of the stream in force came to rest.
    private func rest(_ service: StreamService, _ number: Int, _ old: JSON, _ identity: Digest) throws -> Takeover {
        let name = service.topology.name
        let topics = FoldGraph([Definition(kind: StreamTopology.kind, name: name, body: old)]).streamTopics
            .filter { $0 != service.topology.side.progress && $0 != service.topology.side.state }
        let found = try standing(service, number, identity, tookOver: old[StreamTakeover.member] != nil)
        for topic in topics where log.partitions(of: topic) > number {
            let place = TopicPartition(topic, number)
            let end = try log.offsets(place).upperBound
            guard let more = try log.firstEvent(place, from: found?.emitted[topic] ?? 0, to: end) else { continue }
            throw NodeError(
                "not-at-rest",
                "\(place)@\(more) was emitted by the stream in force behind its last checkpoint (or its state is not here): start the program that has it once more, let it stop in order (SIGTERM), and swap then",
                fault: .world)
        }
        // An output that is new to it holds nothing of somebody else's.
        for topic in service.topology.outputs where !topics.contains(topic) && log.partitions(of: topic) > number {
            let place = TopicPartition(topic, number)
            guard let first = try log.firstEvent(place, from: 0, to: try log.offsets(place).upperBound) else {
                continue
            }
            throw NodeError(
                "not-empty",
                "'\(name)' did not write \(place)@\(first); give the changed one an output of its own")
        }
        return found ?? Takeover(now: .distantPast, fired: nil, inputs: [:], emitted: [:])
    }

    private func standing(
        _ service: StreamService, _ number: Int, _ identity: Digest, tookOver: Bool
    ) throws -> Takeover? {
        guard log.capabilities.contains(.transactions) else {
            let file = StreamService.stateFile(service.topology.name, number, in: configuration.streamsDirectory)
            guard FileManager.default.fileExists(atPath: file) else { return nil }
            return try Takeover(try StateDatabase(path: file, isKept: true), of: identity, tookOver: tookOver)
        }
        // Whoever still folds the task is fenced off: what the log holds then is all that it did.
        let sink = try TransactionSink(log: log, name: service.label(number), partition: number)
        let place = TopicPartition(service.topology.side.state, number)
        let writer = try ChangelogWriter(log: log, name: service.label(number), place: place, identity: identity)
        defer { withExtendedLifetime((sink, writer)) {} }
        let folder = configuration.streamsDirectory + "/.rest"
        try? FileManager.default.removeItem(atPath: folder)
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let database = try StateDatabase(path: folder + "/\(number).sqlite")
        try StateCopy(log: log, place: place, database: database, identity: identity).catchUp()
        return try Takeover(database, of: identity, tookOver: tookOver)
    }

    /// Folds a task of the changed stream up to where it takes over.
    /// - Returns: events folded.
    private func foldToTakeover(
        _ service: StreamService, _ number: Int, _ body: JSON, keeps: Bool
    ) throws -> Int64 {
        let file =
            StreamService.stateFile(service.topology.name, number, in: configuration.streamsDirectory)
            + Self.prepared
        for suffix in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: file + suffix) }
        let runner = try TopologyRunner(
            topology: service.build(body), task: service.task(number), derived: [], log: log,
            database: try StateDatabase(path: keeps ? file : nil), sink: DiscardingSink())
        defer { runner.end() }
        runner.stopsAtTakeover = true
        while try runner.runSlice() { if keeps, runner.needsCheckpoint { try runner.checkpoint() } }
        guard !runner.isSilent else {
            throw NodeError(
                "not-as-far",
                "the changed stream '\(service.topology.name)' cannot come as far as the one in force: \(runner.missing)",
                fault: .world)
        }
        if keeps { try runner.checkpoint() }
        return runner.folded
    }
}
