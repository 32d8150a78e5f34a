import Base
import Catalog
import EventLog
import Foundation
import Streams

extension Node {
    /// Checks the topologies of typed streams that the program brings, declares what they write, and logs that they are in
    /// force.
    static func declareStreams(
        _ topologies: [StreamTopology], log: any EventLog, registry: DefinitionRegistry
    ) throws -> (definitions: [Definition], outputs: [String], tasks: [Int]) {
        var written: [String: String] = [:]
        for topic in WorkspaceTopology.derived.union(SideTopics.platform.all) { written[topic] = "the workspace" }
        for topology in topologies {
            for topic in topology.outputs + topology.side.all {
                guard written[topic] == nil else { continue }
                written[topic] = topology.name
            }
        }
        let declared = Set(registry.all(TopicDefinition.kind).map(\.definition.name))
        var definitions: [Definition] = []
        var tasks: [Int] = []
        var names: Set<String> = []
        for topology in topologies {
            guard names.insert(topology.name).inserted else {
                throw NodeError("two-streams", "two streams are called '\(topology.name)'; each has a name of its own")
            }
            let others = written.filter { $0.value != topology.name }
            let count = try topology.tasks(on: log, written: others)
            let definition = topology.definition(tasks: count)
            if registry.change(definition) == .create, let topic = try emitted(topology, log) {
                throw NodeError(
                    "not-empty",
                    "the stream '\(topology.name)' is new, and its output '\(topic)' holds events that it did not write; give it an output of its own"
                )
            }
            if registry.change(definition) == .change, let topic = try emitted(topology, log) {
                throw NodeError(
                    "in-force",
                    "the stream '\(topology.name)' is another than the one that wrote '\(topic)' so far, and a replay folds from the beginning; give the changed one a new name and new outputs"
                )
            }
            for topic in topology.outputs where declared.contains(topic) && log.partitions(of: topic) != count {
                throw NodeError(
                    "bad-partitions",
                    "the stream '\(topology.name)' runs in \(count) tasks, so its output '\(topic)' needs \(count) partitions, not \(log.partitions(of: topic))"
                )
            }
            definitions += topology.topics(tasks: count, declared: declared) + [definition]
            tasks.append(count)
        }
        return (definitions, topologies.flatMap { $0.outputs + $0.side.all }, tasks)
    }

    /// A topic that the stream writes and that was written to.
    private static func emitted(_ topology: StreamTopology, _ log: any EventLog) throws -> String? {
        for topic in topology.outputs + topology.side.all {
            for partition in 0..<log.partitions(of: topic)
            where try log.offsets(TopicPartition(topic, partition)).upperBound > 0 { return topic }
        }
        return nil
    }

    /// What streams write is theirs, also while no program brings them along.
    static func streamOutputs(_ registry: DefinitionRegistry) -> Set<String> {
        Set(registry.all(StreamTopology.kind).flatMap { StreamTopology.outputs($0.definition) })
    }

    /// What a fold writes has no progress of its own, and the gateway's would stand where the stream's events belong.
    static func refuseOutputs(_ outputs: Set<String>, readBy workspace: WorkspaceTopology) throws {
        let read = workspace.topology.inputs(derived: WorkspaceTopology.derived)
        if let topic = read.first(where: { outputs.contains($0) }) {
            throw NodeError(
                "derived-input",
                "the workspace reads '\(topic)', which a stream of a program writes; compute it in the stream, or in the workspace"
            )
        }
    }

    /// Where the streams' inputs stand.
    var streamInputs: [TopicPartition] {
        streams.flatMap(\.topology.inputs).flatMap { topic in
            (0..<log.partitions(of: topic)).map { TopicPartition(topic, $0) }
        }
    }

    /// Folds a stream again from the beginning and compares what it emits, and its state at every midnight of stream time,
    /// with what the log holds.
    package func replay(stream name: String, to limit: Instant?) throws -> JSON {
        guard let service = streams.first(where: { $0.topology.name == name }) else {
            let known = streams.map(\.topology.name).joined(separator: ", ")
            throw NodeError(
                "unknown-stream",
                "there is no stream '\(name)' in this program; there are: \(known.isEmpty ? "none" : known)")
        }
        return try StreamAudit(log: log, service: service).everything(to: limit) { number in
            try heldState(service, number)
        }.json
    }

    /// The state in service of a task: its fold's where it runs, else what it stored last; nil where there is none.
    private func heldState(_ service: StreamService, _ number: Int) throws -> Audit.HeldState? {
        // A fold that has stopped has nothing to compare with; why it did stands in the status.
        if isStarted { return try? service.folds[number].askBlocking { Audit.HeldState($0) } }
        let file = StreamService.stateFile(service.topology.name, number, in: configuration.streamsDirectory)
        guard FileManager.default.fileExists(atPath: file) else { return nil }
        let runner = try TopologyRunner(
            topology: service.topology.topology(service.topology.make().build()), task: service.task(number),
            derived: [], log: log, database: try StateDatabase(path: file),
            sink: ComparingSink(log: log, ends: [:], side: service.topology.side, partition: number) { _ in })
        return Audit.HeldState(runner)
    }
}
