import Base
import EventLog
import Features
import Streams

/// What views hold, now and as of moments of the past: the log tells.
extension Node {
    /// A time or a position; the end of the log where nothing is asked for.
    package static func limit(_ text: String?) throws -> FoldLimit {
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
                    upstream: workspace.folds.upstream(of: stage.inputs), readings: workspace.readings,
                    sorted: workspace.sorted),
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
}
