import Base
import Catalog
import EventLog
import Foundation
import Streams

extension Node {
    /// Streams of a program as they will be run.
    struct DeclaredStreams {
        var definitions: [Definition] = []
        /// By name.
        var tasks: [String: Int] = [:]
        /// Of the streams' definitions.
        var bodies: [String: JSON] = [:]
        /// What would bring a changed stream into force that is only tried.
        var withheld: [String: [Definition]] = [:]
        var graph: FoldGraph
    }

    /// Checks the topologies of typed streams that the program brings, and declares what they write.
    /// - Parameter triesChanges: a stream may be another than the one in force; nothing of it is brought into force.
    static func declareStreams(
        _ topologies: [StreamTopology], log: any EventLog, registry: DefinitionRegistry, triesChanges: Bool = false
    ) throws -> DeclaredStreams {
        let declared = Set(registry.all(TopicDefinition.kind).map(\.definition.name))
        let own = Set(topologies.map(\.name))
        var found = DeclaredStreams(
            graph: FoldGraph(registry.all(StreamTopology.kind).map(\.definition).filter { !own.contains($0.name) }))
        var partitions: [String: Int] = [:]
        var sides: [String: String] = [:]
        for topology in topologies {
            for topic in topology.side.all + topology.side.own { sides[topic] = topology.name }
        }
        for topology in try inOrder(topologies) {
            let count = try topology.tasks(in: found.graph, sides: sides) { partitions[$0] ?? log.partitions(of: $0) }
            let definition = definition(of: topology, tasks: count, registry)
            let isTried = triesChanges && registry.change(definition) == .change
            if !isTried { try refuseForeign(topology, registry.change(definition), log) }
            for topic in topology.outputs {
                guard declared.contains(topic) else {
                    partitions[topic] = count
                    continue
                }
                guard log.partitions(of: topic) == count else {
                    throw NodeError(
                        "bad-partitions",
                        "the stream '\(topology.name)' runs in \(count) tasks, so its output '\(topic)' needs \(count) partitions, not \(log.partitions(of: topic))"
                    )
                }
            }
            let topics = topology.topics(
                tasks: count, declared: declared, isShared: log.capabilities.contains(.transactions))
            if isTried {
                found.withheld[topology.name] = topics + [definition]
            } else {
                found.definitions += topics + [definition]
            }
            found.tasks[topology.name] = count
            found.bodies[topology.name] = definition.body
            found.graph.add(definition)
        }
        return found
    }

    /// A stream reads its inputs at the versions that they had when it came into force, for good.
    private static func definition(
        of topology: StreamTopology, tasks: Int, _ registry: DefinitionRegistry
    ) -> Definition {
        let known = registry.entries[topology.definition(tasks: tasks).key]?.definition.body
        let same = topology.definition(
            tasks: tasks, reads: known?["reads"]?.object ?? [:],
            since: known?[StreamTakeover.member].flatMap { StreamTakeover($0) })
        guard registry.change(same) != .unchanged else { return same }
        var reads: [String: JSON] = [:]
        for (topic, upcasting) in upcastings(registry) where topology.inputs.contains(topic) {
            reads[topic] = .int(Int64(upcasting.version))
        }
        return topology.definition(tasks: tasks, reads: reads)
    }

    /// Of topics of which the data has had more than one version.
    private static func upcastings(_ registry: DefinitionRegistry) -> [String: Upcasting] {
        var found: [String: Upcasting] = [:]
        for entry in registry.all(TopicDefinition.kind) {
            guard let topic = try? TopicDefinition(entry.definition), topic.upcasting.version > 1 else { continue }
            found[topic.name] = topic.upcasting
        }
        return found
    }

    /// How a stream reads what has had several versions.
    /// - Parameter body: of its definition.
    static func readings(_ body: JSON, _ registry: DefinitionRegistry) -> [String: TopicReading] {
        let reads = body["reads"]
        var readings: [String: TopicReading] = [:]
        for (topic, upcasting) in upcastings(registry) {
            readings[topic] = TopicReading(upcasting, version: Int(reads?[topic]?.int ?? 1))
        }
        return readings
    }

    /// Writers before their readers.
    private static func inOrder(_ topologies: [StreamTopology]) throws -> [StreamTopology] {
        var names: Set<String> = []
        var writers: [String: String] = [:]
        for topology in topologies {
            guard names.insert(topology.name).inserted else {
                throw NodeError("two-streams", "two streams are called '\(topology.name)'; each has a name of its own")
            }
            for topic in topology.outputs { writers[topic] = writers[topic] ?? topology.name }
        }
        var list: [StreamTopology] = []
        var waiting = topologies
        while !waiting.isEmpty {
            let unwritten = Set(waiting.map(\.name))
            let (ready, others) = waiting.reduce(into: ([StreamTopology](), [StreamTopology]())) { split, topology in
                let waits = topology.inputs.contains { topic in
                    writers[topic].map { $0 != topology.name && unwritten.contains($0) } ?? false
                }
                if waits { split.1.append(topology) } else { split.0.append(topology) }
            }
            guard !ready.isEmpty else {
                throw FoldGraph.circle(others.map(\.name).joined(separator: ", "))
            }
            list += ready
            waiting = others
        }
        return list
    }

    /// A stream goes on only where it wrote itself.
    private static func refuseForeign(
        _ topology: StreamTopology, _ change: DefinitionRegistry.Change, _ log: any EventLog
    ) throws {
        guard change != .unchanged, let topic = try emitted(topology, log) else { return }
        guard change == .create else {
            throw NodeError(
                "in-force",
                "the stream '\(topology.name)' is another than the one that wrote '\(topic)' so far: `replay --processor \(topology.name)` says what it would have written, and with `--swap` it takes over; or give the changed one a new name and new outputs"
            )
        }
        throw NodeError(
            "not-empty",
            "the stream '\(topology.name)' is new, and its output '\(topic)' holds events that it did not write; give it an output of its own"
        )
    }

    /// A topic that the stream writes and that was written to.
    private static func emitted(_ topology: StreamTopology, _ log: any EventLog) throws -> String? {
        for topic in topology.outputs + topology.side.all {
            for partition in 0..<log.partitions(of: topic)
            where try log.offsets(TopicPartition(topic, partition)).upperBound > 0 { return topic }
        }
        return nil
    }

    /// Folds that wait for what nobody writes now: the program brings no stream of that name along.
    func waits(_ workspace: CompiledWorkspace) throws -> [String] {
        let running = Set(streams.map(\.topology.name))
        let own = try WorkspaceTopology(workspace)
        let readers =
            [(WorkspaceTopology.name, own.topology.inputs(derived: WorkspaceTopology.derived))]
            + streams.map { ($0.topology.name, $0.topology.inputs) }
        return readers.flatMap { name, inputs in
            inputs.compactMap { topic in
                guard let writer = workspace.folds.writer(of: topic), writer.name != WorkspaceTopology.name,
                    !running.contains(writer.name)
                else { return nil }
                return
                    "'\(name)' waits for '\(topic)': the stream '\(writer.name)' writes it, and this program does not bring it"
            }
        }
    }

    /// Where the streams' inputs stand that no fold writes.
    var streamInputs: [TopicPartition] {
        streams.flatMap { service in service.topology.inputs.filter { service.graph.writer(of: $0) == nil } }.flatMap {
            topic in
            (0..<log.partitions(of: topic)).map { TopicPartition(topic, $0) }
        }
    }

    /// The state in service of a task: its fold's where it runs, else what it stored last; nil where there is none.
    func heldState(_ service: StreamService, _ number: Int, _ bucket: StateBucket?) throws -> HeldState? {
        // A fold that has stopped has nothing to compare with; why it did stands in the status.
        if isStarted { return try? service.fold(number)?.askBlocking { try HeldState($0, bucket: bucket) } }
        let file = StreamService.stateFile(service.topology.name, number, in: configuration.streamsDirectory)
        guard FileManager.default.fileExists(atPath: file) else { return nil }
        let runner = try TopologyRunner(
            topology: service.build(), task: service.task(number), derived: [], log: log,
            database: try StateDatabase(path: file, isKept: true),
            sink: ComparingSink(log: log, ends: [:], side: service.topology.side, partition: number) { _ in })
        return try HeldState(runner, bucket: bucket)
    }

    /// How long a worker waits for the node that brings its streams into force, in seconds.
    private static let definitionPatience = 30.0

    /// A worker brings nothing into force: it waits for a node that does.
    func awaitDefinitions() throws -> DefinitionRegistry {
        guard !configuration.streams.isEmpty else {
            throw NodeError("no-streams", "this program brings no streams, so there is nothing to work on")
        }
        let deadline = Date(timeIntervalSinceNow: Self.definitionPatience)
        while true {
            let found = try DefinitionRegistry(log: log)
            let known = Set(found.all(StreamTopology.kind).map(\.definition.name))
            guard let missing = configuration.streams.first(where: { !known.contains($0.name) }) else { return found }
            guard Date() < deadline else {
                throw NodeError(
                    "not-in-force",
                    "no node has brought the stream '\(missing.name)' into force on this log; run this program with `start` once",
                    fault: .world)
            }
            Thread.sleep(forTimeInterval: 0.2)
        }
    }

    func requireInForce(_ definitions: [Definition]) throws {
        guard let other = definitions.first(where: { registry.change($0) != .unchanged }) else { return }
        throw NodeError(
            "not-in-force",
            "\(other.place): '\(other.name)' is another here than what is in force on this log; every node of a log runs the same program"
        )
    }

    /// Alone on its log a node has every task of its streams.
    func startStreams(_ address: String) throws {
        guard let kafka, !streams.isEmpty else {
            for stream in streams { try stream.start(log: log, directory: configuration.streamsDirectory) }
            return
        }
        let share = TaskShare(
            log: kafka, streams: streams, directory: configuration.streamsDirectory,
            address: configuration.advertised ?? address, keepsCopies: configuration.keepsCopies
        ) { [log] service in
            let known = try DefinitionRegistry(log: log).entries["\(StreamTopology.kind)/\(service.topology.name)"]
            return known?.definition.body == service.body
        }
        shareBox.withLock { $0 = share }
        try share.start()
    }
}
