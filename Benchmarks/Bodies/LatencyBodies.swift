import Base
import EventLog
import Foundation
import Node
import RecordFormat
import StreamExamples
import Streams

/// How long an event takes from its publisher's hands until a question to the fold is answered with it: appended, synced, read,
/// folded, seen.
package enum LatencyBodies {
    package struct Result: Sendable {
        package let events: Int
        package let perSecond: Double
        /// Milliseconds, over all events.
        package let p50: Double
        package let p99: Double
        package let worst: Double
    }

    /// When events were handed over, and how many have been.
    private struct Published {
        var moments: [(count: Int, at: UInt64)] = []
        var isDone = false
    }

    /// Events of one millisecond go in one append, with the progress that closes it, as a connector does. They are folded by the
    /// typed example, which emits an event for each into the log.
    package static func endToEnd(
        _ log: any EventLog, payloads: [[UInt8]], stateDirectory: String, perSecond: Int, seconds: Double
    ) throws -> Result {
        let topic = "flights.departed"
        let builder = FlightStreams.carrierHours()
        let (name, output) = (builder.name, builder.build().outputs[0])
        let side = SideTopics(of: name)
        for other in [topic, output] + side.all {
            try log.declare(TopicLayout(name: other, partitions: 1, deduplication: .never))
        }
        try FileManager.default.createDirectory(atPath: stateDirectory, withIntermediateDirectories: true)
        let fold = FoldHost(checkpointSeconds: 5)
        fold.start(log: log) {
            try TopologyRunner(
                topology: Topology(
                    name: name, stages: [FlightStreams.carrierHours().build()], answers: [], attachments: [], side: side
                ),
                derived: [], log: log, database: try StateDatabase(path: stateDirectory + "/state.sqlite"),
                sink: LogSink(log: log, principal: "bench"))
        }
        defer { fold.stop() }
        let published = Monitor(Published())
        let (each, appends) = (max(1, perSecond / 1000), Int(seconds * 1000))
        let producer = BlockingThread(name: "producer") {
            publish(log, topic, payloads, each: each, appends: appends, published)
        }
        defer { producer.join() }
        return try observe(fold, published, events: each * appends)
    }

    private static func publish(
        _ log: any EventLog, _ topic: String, _ payloads: [[UInt8]], each: Int, appends: Int,
        _ published: Monitor<Published>
    ) {
        let start = DispatchTime.now().uptimeNanoseconds
        let pipeline = AppendPipeline(log: log)
        for number in 0..<appends {
            let due = start + UInt64(number) * 1_000_000
            let now = DispatchTime.now().uptimeNanoseconds
            if now < due { usleep(UInt32((due - now) / 1000)) }
            let time = Instant(milliseconds: 1_400_000_000_000 + Int64(number))
            var events = (0..<each).map { index in
                let count = number * each + index
                return (
                    topic: topic, partition: Int?(0),
                    event: NewEvent(
                        id: "d\(count)", source: "bench", type: "flight.departed", time: time,
                        data: payloads[count % payloads.count])
                )
            }
            events.append(
                (
                    topic, 0,
                    NewEvent(
                        id: "p\(number)", source: "bench", type: EventType.progress, time: time,
                        data: [UInt8]("{\"through\":\"\(time)\"}".utf8))
                ))
            // By the clock that was due: who comes late has waited as well.
            published.update { $0.moments.append(((number + 1) * each, max(due, start))) }
            guard (try? pipeline.send(LogAppend(principal: "bench", events: events)) { _ in nil }) != nil else { break }
        }
        _ = try? pipeline.drain()
        published.update { $0.isDone = true }
    }

    private static func observe(
        _ fold: FoldHost, _ published: Monitor<Published>, events: Int
    ) throws -> Result {
        var next = 0
        var latencies: [Double] = []
        let begun = DispatchTime.now().uptimeNanoseconds
        var quiet = begun
        while latencies.count < events {
            let seen = try fold.askBlocking { $0.folded }
            let now = DispatchTime.now().uptimeNanoseconds
            let (moments, isDone) = published.withLock { (Array($0.moments[next...]), $0.isDone) }
            for moment in moments where moment.count <= seen {
                let waited = Double(now - min(now, moment.at)) / 1e6
                latencies += Array(repeating: waited, count: moment.count - latencies.count)
                next += 1
                quiet = now
            }
            // A fold that goes no further would keep it waiting for ever.
            guard !isDone || now - quiet < 10_000_000_000 else {
                throw EventLogError("bench", "\(latencies.count) of \(events) events were folded", fault: .world)
            }
            usleep(200)
        }
        let elapsed = Double(DispatchTime.now().uptimeNanoseconds - begun) / 1e9
        latencies.sort()
        func percentile(_ share: Double) -> Double {
            latencies[min(latencies.count - 1, Int(Double(latencies.count) * share))]
        }
        return Result(
            events: latencies.count, perSecond: Double(latencies.count) / elapsed, p50: percentile(0.5),
            p99: percentile(0.99), worst: latencies.last ?? 0)
    }
}
