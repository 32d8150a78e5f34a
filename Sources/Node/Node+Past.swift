import Base
import EventLog
import Features
import Streams

/// What views hold, now and as of moments of the past: the log tells.
extension Node {
    /// A time or a position; the end of the log where nothing is asked for.
    static func limit(_ text: String?) throws -> FoldLimit {
        guard let limit = FoldLimit(text) else {
            throw NodeError(
                "bad-time", "'\(text ?? "")' is neither an RFC 3339 time nor a position such as orders/0@17")
        }
        return limit
    }

    package func pastFeatures(view name: String, key: String, asOf text: String?) throws -> JSON {
        let limit = try Node.limit(text)
        var moment = Instant.distantFuture
        if case .time(let time) = limit { moment = time }
        let workspace = try compile()
        let stage = FeatureStage(views: workspace.views.filter { $0.name == name }, questions: [])
        if let view = stage.views.first {
            var ends: [TopicPartition: Int64] = [:]
            for partition in 0..<log.partitions(of: view.topic) {
                let place = TopicPartition(view.topic, partition)
                ends[place] = try log.offsets(place).upperBound
            }
            let runner = try TopologyRunner(
                topology: Topology(
                    name: "as of", stages: [stage], answers: [], attachments: [],
                    upstream: workspace.folds.upstream(of: stage.inputs), readings: workspace.readings),
                derived: [], log: log, database: try StateDatabase(path: nil), sink: DiscardingSink(), ends: ends)
            try runner.end(at: limit)
            runner.recordsDigests = false
            while try runner.runSlice() {}
            if moment == .distantFuture { moment = runner.now }
        }
        var members: [String: JSON] = [:]
        for (name, value) in try stage.read(view: name, key: key, at: moment, known: workspace.views.map(\.name)) {
            members[name] = value
        }
        return .object([
            "view": .string(name), "key": .string(key), "asOf": Node.moment(moment),
            "features": .object(members),
        ])
    }

    /// What a stream's served table holds for a key.
    /// - Parameter text: a time or a position of the past, for which the stream is folded again from the log; nil for now.
    package func view(stream name: String, view: String, key: String, asOf text: String?) throws -> JSON {
        let service = try stream(name)
        guard service.topology.views.contains(view) else {
            let known = service.topology.views.joined(separator: ", ")
            throw NodeError(
                "unknown-view",
                "the stream '\(name)' serves no table '\(view)'; it serves \(known.isEmpty ? "none" : known)")
        }
        let limit = try Node.limit(text)
        let number =
            service.folds.count == 1 ? 0 : murmur2Partition([UInt8](key.utf8), partitions: service.folds.count)
        // A key may stand in another partition than its own hash says: then its task is found by asking.
        var found: (value: JSON, time: Instant)?
        var now = Instant.distantPast
        var numbers = [number] + service.folds.indices.filter { $0 != number }
        if case .position(let position) = limit, service.folds.count > 1 { numbers = [position.partition] }
        for number in numbers where found == nil && service.folds.indices.contains(number) {
            let read: @Sendable (TopologyRunner) throws -> ((value: JSON, time: Instant)?, Instant) = { runner in
                (try runner.topology.stages.lazy.compactMap { try $0.read(view: view, key: key) }.first, runner.now)
            }
            let answer: ((value: JSON, time: Instant)?, Instant)
            if limit.isEnd, isStarted {
                answer = try service.folds[number].askBlocking(read)
            } else {
                answer = try read(try past(service, number, limit))
            }
            found = answer.0
            now = max(now, answer.1)
        }
        guard let found else {
            throw NodeError(
                "unknown-key",
                "'\(view)' of the stream '\(name)' holds nothing for '\(key)' \(text.map { "as of \($0)" } ?? "now")")
        }
        if case .time(let time) = limit { now = time }
        return .object([
            "stream": .string(name), "view": .string(view), "key": .string(key), "value": found.value,
            "time": .string(found.time.description), "asOf": Node.moment(now),
        ])
    }

    private func stream(_ name: String) throws -> StreamService {
        guard let service = streams.first(where: { $0.topology.name == name }) else {
            let known = streams.map(\.topology.name).joined(separator: ", ")
            throw NodeError(
                "unknown-stream",
                "there is no stream '\(name)' in this program; there are: \(known.isEmpty ? "none" : known)")
        }
        return service
    }

    /// A task as it was, folded again in shadow state.
    private func past(_ service: StreamService, _ number: Int, _ limit: FoldLimit) throws -> TopologyRunner {
        var ends: [TopicPartition: Int64] = [:]
        for topic in service.topology.inputs {
            for partition in 0..<log.partitions(of: topic) {
                let place = TopicPartition(topic, partition)
                ends[place] = try log.offsets(place).upperBound
            }
        }
        let runner = try TopologyRunner(
            topology: service.build(), task: service.task(number), derived: [], log: log,
            database: try StateDatabase(path: nil), sink: DiscardingSink(), ends: ends)
        runner.recordsDigests = false
        try runner.end(at: limit)
        while try runner.runSlice() {}
        return runner
    }
}
