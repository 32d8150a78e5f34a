import Base
import Catalog
import EventLog
import Foundation
import Streams

/// A topology of typed streams that a program brings along. It is built anew for every task and every replay: its state is
/// in what is built.
package struct StreamTopology: Sendable {
    package let make: @Sendable () -> StreamBuilder
    package let name: String
    package let inputs: [String]
    package let outputs: [String]
    package let description: TopologyDescription
    /// Tables that it serves.
    package let views: [String]
    private let parallelism: StreamBuilder.Parallelism
    private var isPartitioned: Bool { parallelism != .single }
    /// Tasks that share the keys of all partitions; nil where each has a partition.
    private var keyTasks: Int? {
        if case .byKey(let tasks) = parallelism { tasks } else { nil }
    }
    /// Each partition of an input is read by the task of its number alone.
    var isByPartition: Bool { parallelism == .byPartition }
    private let onFailure: StreamBuilder.FailurePolicy
    private let unpartitioned: [String]
    private let rekeyed: [String]

    /// Definitions of this kind say which topology was in force. They come from programs, never from files.
    package static let kind = "Stream"

    package init(_ make: @escaping @Sendable () -> StreamBuilder) {
        self.make = make
        let builder = make()
        let stage = builder.build()
        name = builder.name
        inputs = stage.inputs
        outputs = stage.outputs
        description = builder.description
        views = stage.views
        onFailure = builder.onFailure
        parallelism = builder.parallelism
        unpartitioned = builder.unpartitioned
        rekeyed = builder.rekeyed
    }

    package var side: SideTopics { SideTopics(of: name) }

    /// How many tasks fold it on this log.
    /// - Parameters:
    ///   - graph: every other fold that is known so far.
    ///   - others: side topics of the program's streams, with the name of each one's.
    ///   - partitions: how many a topic has; 0 where nobody declares it.
    func tasks(in graph: FoldGraph, sides others: [String: String], partitions: (String) -> Int) throws -> Int {
        func refusal(_ code: String, _ reason: String) -> NodeError {
            NodeError(code, "the stream '\(name)': \(reason)")
        }
        guard TopicName.isLegal(name + ".unfolded"), !name.hasPrefix("headrace."), name != WorkspaceTopology.name else {
            throw refusal("bad-name", "its name stands in topics: letters, digits, '.', '_' and '-'")
        }
        guard !inputs.isEmpty else {
            throw refusal("no-input", "it reads no topic; begin with stream(_:) or table(_:)")
        }
        for topic in inputs {
            guard partitions(topic) > 0 else {
                throw refusal("unknown-topic", "it reads '\(topic)', which no definition declares")
            }
            if let fold = graph.sides(topic) ?? others[topic] {
                throw refusal(
                    "derived-input",
                    "it reads '\(topic)', where '\(fold)' puts what is no result; that is not in the order of its times"
                )
            }
        }
        for topic in outputs + side.all + side.own {
            if let writer = graph.writer(of: topic)?.name ?? graph.sides(topic) {
                throw refusal(
                    "two-writers", "it writes '\(topic)', which '\(writer)' writes too; each topic has one writer")
            }
        }
        if let topic = outputs.first(where: { inputs.contains($0) }) {
            throw refusal("derived-input", "it reads '\(topic)', which it writes itself")
        }
        guard isPartitioned else { return 1 }
        guard unpartitioned.isEmpty else {
            throw refusal(
                "rekeyed",
                isByPartition
                    ? unpartitionedReason
                    : "it runs by key, and \(named(unpartitioned)) keeps state under, or writes, another key than the one by which its values came to their task; put what is behind the first state into a stream of its own"
            )
        }
        if let keyTasks {
            guard (1...Self.keyTaskLimit).contains(keyTasks) else {
                throw refusal(
                    "bad-tasks", "it runs by key in \(keyTasks) tasks; there may be 1 to \(Self.keyTaskLimit)")
            }
            return keyTasks
        }
        for topic in inputs {
            guard let writer = graph.writer(of: topic), writer.rekeyed.contains(topic) else { continue }
            throw refusal(
                "rekeyed",
                "it runs by partition, and in '\(topic)' the events of one key stand in several: '\(writer.name)' writes them under another key than it read; run it by key, or as one"
            )
        }
        let counts = inputs.map(partitions)
        guard let count = counts.first, counts.allSatisfy({ $0 == count }) else {
            let list = zip(inputs, counts).map { "'\($0)' has \($1)" }.joined(separator: ", ")
            throw refusal("not-copartitioned", "it runs by partition, and its inputs have different numbers: \(list)")
        }
        return count
    }

    /// Tasks that a stream by key may have.
    private static let keyTaskLimit = 1024

    private func named(_ operators: [String]) -> String { operators.map { "'\($0)'" }.joined(separator: ", ") }

    private var unpartitionedReason: String {
        "it runs by partition, and \(named(unpartitioned)) keeps state under another key than the topic's; run it by key (runs: .byKey(tasks:)), key by the event's own, say keepsPartition where the key stands in one partition anyway, or run it as one"
    }

    /// What is logged of it, so that history knows which topology was in force.
    /// - Parameters:
    ///   - reads: versions of its inputs' data, where there have been several.
    ///   - since: where it took over from the one before it.
    func definition(tasks: Int, reads: [String: JSON] = [:], since: StreamTakeover? = nil) -> Definition {
        var body = description.json.object ?? [:]
        body["tasks"] = .int(Int64(tasks))
        if isPartitioned, !rekeyed.isEmpty { body["rekeyed"] = .array(rekeyed.map { .string($0) }) }
        if keyTasks != nil { body["sharing"] = "key" }
        if !reads.isEmpty { body["reads"] = .object(reads) }
        if let since { body[StreamTakeover.member] = since.json }
        return Definition(kind: Self.kind, name: name, body: .object(body), place: "the stream '\(name)'")
    }

    /// The topics that it writes and nobody declared.
    /// - Parameter isShared: other nodes may take tasks over, and learn their state from a topic.
    func topics(tasks: Int, declared: Set<String>, isShared: Bool) -> [Definition] {
        let words = [
            side.late: "late events of the stream", side.unfolded: "what could not be folded by the stream",
            side.digests: "state digests of the stream", side.progress: "how far the stream is:",
            side.state: "changelog of the state of the stream",
        ]
        let all = outputs + side.all + [side.progress] + (isShared ? [side.state] : [])
        return all.filter { !declared.contains($0) }.map { topic in
            // Ids are kept: what a fold emits again after a crash is known by them.
            var body: [String: JSON] = [
                "name": .string(topic), "partitions": .int(Int64(tasks)),
                "description": .string("\(words[topic] ?? "written by the stream") '\(name)'"),
            ]
            if topic == side.state { body["cleanup"] = "compact" }
            return Definition(
                kind: TopicDefinition.kind, name: topic, body: .object(body), place: "the stream '\(name)'")
        }
    }

    /// Members of a definition's body that are no part of what was written down.
    private static let added = ["tasks", "rekeyed", "sharing", "reads", StreamTakeover.member]

    /// Of what a stream's state is the state: what was written down, and what decides what it means.
    /// - Parameter body: of its definition.
    static func identity(_ body: JSON, readings: [String: TopicReading]) -> Digest {
        var text = JSON.object((body.object ?? [:]).filter { !added.contains($0.key) }).canonical
        for (topic, reading) in readings.sorted(by: { $0.key < $1.key }) where reading.version > 1 {
            text += [UInt8]("\n\(topic) \(reading.version)".utf8)
        }
        if body["sharing"]?.string == "key" { text += [UInt8]("\nby key \(body["tasks"]?.int ?? 0)".utf8) }
        if let since = body[StreamTakeover.member] { text += [UInt8]("\nsince ".utf8) + since.canonical }
        return Digest.of(text)
    }

    /// - Parameter body: of its definition.
    func topology(
        _ stage: any Stage, body: JSON, in graph: FoldGraph, readings: [String: TopicReading], sorted: Set<String>
    ) -> Topology {
        let since = body[StreamTakeover.member].flatMap { StreamTakeover($0) }
        return Topology(
            name: name, stages: [stage], answers: [], attachments: [], side: side,
            identity: Self.identity(body, readings: readings), upstream: graph.upstream(of: inputs),
            saysProgress: graph.isRead(name), stopsAtFailure: onFailure == .stop, readings: readings,
            keyTasks: keyTasks, generation: since?.generation ?? 1, takeovers: since?.tasks ?? [],
            sorted: sorted.intersection(inputs))
    }
}
