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
        var stores: [AnyStateStore] { [windows] }
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
        private(set) var taken = 0
        func take(_ event: DerivedEvent) { if event.topic != TopologyRunner.digestTopic { taken += 1 } }
        func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) {}
        func flush(_ consumed: () -> [TopicPartition: Int64]) {}
    }

    /// Events with their own times, a year further each time the payloads begin anew, and progress behind them.
    package static func fill(_ log: any EventLog, payloads: [[UInt8]], events: Int) throws {
        try log.declare(TopicLayout(name: topic, partitions: 1))
        var times: [Int64] = []
        let document = JSONDocument()
        for payload in payloads {
            try document.parse(payload)
            let text = document.member(0, "time").flatMap { document.string($0) } ?? ""
            times.append(Instant(text)?.milliseconds ?? 0)
        }
        let year = (times.max() ?? 0) - (times.min() ?? 0) + 1
        let pipeline = AppendPipeline(log: log)
        var newest: Int64 = 0
        for start in stride(from: 0, to: events, by: 2000) {
            let batch = (start..<min(start + 2000, events)).map { number in
                newest = times[number % payloads.count] + Int64(number / payloads.count) * year
                return (
                    topic: topic, partition: Int?(0),
                    event: NewEvent(
                        id: "d\(number)", source: "bench", type: "flight.departed", time: Instant(milliseconds: newest),
                        data: payloads[number % payloads.count])
                )
            }
            try pipeline.send(LogAppend(principal: "bench", events: batch)) { _ in nil }
        }
        try pipeline.drain()
        let end = Instant(milliseconds: newest)
        let progress = NewEvent(
            id: "progress", source: "bench", type: EventType.progress, time: end,
            data: [UInt8]("{\"through\":\"\(end)\",\"state\":\"finished\"}".utf8))
        _ = try log.append(LogAppend(principal: "bench", events: [(topic, 0, progress)]))
    }

    /// Folds all of them, checkpoints included.
    package static func fold(
        _ log: any EventLog, stateFile: String
    ) throws -> (perSecond: Double, answers: Int, worst: Double) {
        let stage = Hour(try FeatureView(try Workspace.parse(view, file: "bench")[0]))
        let elapsed = try seconds(of: stage, log, stateFile)
        return (Double(stage.answers) / elapsed, stage.answers, stage.worst)
    }

    /// The same windows by typed operators, which emit every answer as an event.
    package static func foldTyped(
        _ log: any EventLog, stateFile: String
    ) throws -> (perSecond: Double, answers: Int) {
        let sink = Sink()
        let elapsed = try seconds(of: FlightStreams.carrierHours().build(), log, stateFile, sink)
        return (Double(sink.taken) / elapsed, sink.taken)
    }

    private static func seconds(
        of stage: any Stage, _ log: any EventLog, _ stateFile: String, _ sink: Sink = Sink()
    ) throws -> Double {
        let topology = Topology(name: "bench", stages: [stage], answers: [], attachments: [])
        let runner = try TopologyRunner(
            topology: topology, derived: [], log: log, database: try StateDatabase(path: stateFile), sink: sink)
        return try LogBodies.seconds {
            var saved = DispatchTime.now().uptimeNanoseconds
            while try runner.runSlice() {
                let now = DispatchTime.now().uptimeNanoseconds
                guard now - saved > 2_000_000_000 else { continue }
                try runner.checkpoint()
                saved = now
            }
            try runner.checkpoint()
        }
    }
}
