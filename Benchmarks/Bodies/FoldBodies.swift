import Base
import Catalog
import EventLog
import Features
import Foundation
import RecordFormat
import StreamExamples
import Streams

/// The fold of departures into a sliding hour per carrier, from the log, with an answer after every event.
package enum FoldBodies {
    private static let topic = "flights.departed"
    private static let view = """
        kind: FeatureView
        name: carrier_hour
        topic: flights.departed
        key: data.carrier
        aggregates:
          - {name: departures, function: count, window: 1h}
          - {name: delay, function: mean, of: data.dep_delay, window: 1h}
          - {name: worst, function: max, of: data.dep_delay, window: 1h}
        """

    /// Reads its view after every event, as a peer that gives an output for every input does.
    private final class Hour: Stage {
        let name = "hour"
        let inputs = [FoldBodies.topic]
        let outputs: [String] = []
        private let view: FeatureView
        private let windows = StateStore<WindowState>(name: "hour.windows")
        private let carrier = JSONKey("carrier")
        private let delay = JSONKey("dep_delay")
        var stores: [any AnyStateStore] { [windows] }
        private(set) var answers = 0
        private(set) var worst = 0.0

        init(_ view: FeatureView) { self.view = view }

        func process(_ event: StreamEvent, _ context: StageContext) throws {
            let document = event.document
            guard let node = document.member(0, carrier), let key = document.string(node) else { return }
            let value = document.member(0, delay).flatMap { document.double($0) } ?? .nan
            let time = event.time.milliseconds
            let answer = windows.modify(key, default: WindowState(columnCount: 1)) { state in
                state.add(time: time, row: [value], plan: view.plan)
                return state.read(view.plan, at: time)
            }
            answers += 1
            worst = max(worst, answer[2])
        }
    }

    private final class Sink: DerivedSink {
        func take(_ event: DerivedEvent) {}
        func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) {}
        func flush(_ consumed: () -> [TopicPartition: Int64]) {}
    }

    /// Events with their own times, a year further each time the payloads begin anew, partitioned by what `key` gives, and
    /// progress behind them.
    /// - Parameter distinctKeys: keys that are gone through one after another, instead of the payloads' own; events follow each
    ///   other so closely then that two million of them lie within a day, and all keys are in their windows at once.
    package static func fill(
        _ log: any EventLog, payloads: [[UInt8]], events: Int, partitions: Int, distinctKeys: Int? = nil,
        key: (Int, JSONDocument) -> String = { _, document in
            document.member(0, "carrier").flatMap { document.string($0) } ?? ""
        }
    ) throws {
        try log.declare(TopicLayout(name: topic, partitions: partitions, deduplication: .never))
        var times: [Int64] = []
        var keys: [[UInt8]] = []
        let document = JSONDocument()
        for (number, payload) in payloads.enumerated() {
            try document.parse(payload)
            let text = document.member(0, "time").flatMap { document.string($0) } ?? ""
            times.append(Instant(text)?.milliseconds ?? 0)
            keys.append([UInt8](key(number, document).utf8))
        }
        let closeness: Int64 = 40
        let year = (times.max() ?? 0) - (times.min() ?? 0) + 1
        let pipeline = AppendPipeline(log: log)
        var newest: Int64 = 0
        for start in stride(from: 0, to: events, by: 2000) {
            let batch = (start..<min(start + 2000, events)).map { number in
                newest =
                    distinctKeys == nil
                    ? times[number % payloads.count] + Int64(number / payloads.count) * year
                    : (times.first ?? 0) + Int64(number) * closeness
                return (
                    topic: topic, partition: Int?.none,
                    event: NewEvent(
                        id: "d\(number)", source: "bench", type: "flight.departed", time: Instant(milliseconds: newest),
                        key: distinctKeys.map { [UInt8]("k\(number % $0)".utf8) } ?? keys[number % payloads.count],
                        data: payloads[number % payloads.count])
                )
            }
            try pipeline.send(LogAppend(principal: "bench", events: batch)) { _ in nil }
        }
        try pipeline.drain()
        let end = Instant(milliseconds: newest)
        for partition in 0..<partitions {
            let progress = NewEvent(
                id: "progress\(partition)", source: "bench", type: EventType.progress, time: end,
                data: [UInt8]("{\"through\":\"\(end)\",\"state\":\"finished\"}".utf8))
            _ = try log.append(LogAppend(principal: "bench", events: [(topic, partition, progress)]))
        }
    }

    /// Folds all of them by hand-written stages, one task a partition, checkpoints included.
    package static func fold(
        _ log: any EventLog, stateDirectory: String
    ) throws -> (perSecond: Double, answers: Int, worst: Double) {
        // A view of its own for each: what tasks share they would count references of against each other.
        let stages = try (0..<log.partitions(of: topic)).map { _ in
            Hour(try FeatureView(try Workspace.parse(view, file: "bench")[0]))
        }
        let elapsed = try seconds(of: stages, log, stateDirectory) { _ in Sink() }
        let answers = stages.reduce(0) { $0 + $1.answers }
        return (Double(answers) / elapsed, answers, stages.map(\.worst).max() ?? 0)
    }

    /// Folds by typed operators, which emit every answer as an event into the log.
    package static func foldTyped(
        _ log: any EventLog, stateDirectory: String, output: String, _ make: () -> StreamBuilder
    ) throws -> (perSecond: Double, answers: Int) {
        let tasks = log.partitions(of: topic)
        let side = SideTopics(of: output)
        for name in side.all + [output] {
            try log.declare(TopicLayout(name: name, partitions: tasks, deduplication: .never))
        }
        let stages = (0..<tasks).map { _ in make().build() }
        let elapsed = try seconds(of: stages, log, stateDirectory, side: side) { _ in
            LogSink(log: log, principal: "bench")
        }
        let answers = try (0..<tasks).reduce(0) { try $0 + log.offsets(TopicPartition(output, $1)).count }
        return (Double(answers) / elapsed, answers)
    }

    private static func seconds(
        of stages: [any Stage], _ log: any EventLog, _ directory: String, side: SideTopics = .platform,
        _ sink: (Int) -> any DerivedSink
    ) throws -> Double {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let runners = try stages.enumerated().map { task, stage in
            try TopologyRunner(
                topology: Topology(name: "bench", stages: [stage], answers: [], attachments: [], side: side),
                task: stages.count > 1 ? task : nil, derived: [], log: log,
                database: try StateDatabase(path: "\(directory)/\(task).sqlite"), sink: sink(task))
        }
        return try LogBodies.seconds { try TopologyTasks.run(runners, checkpointSeconds: 2) }
    }
}
