import Base
import EventLog
import Foundation
import RecordFormat
import Simulation
import Streams
import Testing

/// Single operators whose meaning the random topologies do not reach.
@Suite struct TypedOperatorTests {
    private final class Collector: DerivedSink {
        var lines: [String] = []
        func take(_ event: DerivedEvent) {
            guard event.topic != SideTopics.platform.digests else { return }
            let key = String(decoding: event.event.key ?? [], as: UTF8.self)
            lines.append("\(event.topic) \(key) \(String(decoding: event.event.data ?? [], as: UTF8.self))")
        }
        func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) {}
        func flush(_ consumed: () -> [TopicPartition: Int64]) {}
    }

    /// What comes out of a topology for events of two topics, in the order of their times.
    private func run(
        _ builder: StreamBuilder, _ events: [(topic: String, time: Int64, key: String, data: String?)]
    ) throws -> [String] {
        var options = EmbeddedLog.Options()
        options.hasThreads = false
        let log = try EmbeddedLog.open(SimulatedVolume(seed: 1), options: options)
        for topic in ["left", "right"] { try log.declare(TopicLayout(name: topic, partitions: 1)) }
        var batch: [(topic: String, partition: Int?, event: NewEvent)] = events.enumerated().map { number, event in
            (
                event.topic, 0,
                NewEvent(
                    id: "\(number)", source: "s", type: "t", time: Instant(milliseconds: event.time),
                    key: [UInt8](event.key.utf8), data: event.data.map { [UInt8]($0.utf8) })
            )
        }
        for topic in ["left", "right"] {
            let data = [UInt8](#"{"through":"1970-01-01T00:01:00Z","state":"finished"}"#.utf8)
            let progress = NewEvent(
                id: "p\(topic)", source: "s", type: EventType.progress, time: Instant(milliseconds: 0), data: data)
            batch.append((topic, 0, progress))
        }
        log.append(LogAppend(principal: "p", events: batch)) { _ in }
        log.commitReady()
        let collector = Collector()
        let runner = try TopologyRunner(
            topology: Topology(name: "t", stages: [builder.build()], answers: [], attachments: []), derived: ["out"],
            log: log, database: try StateDatabase(path: nil), sink: collector)
        while try runner.runSlice() {}
        log.close()
        return collector.lines
    }

    /// An event without data takes its key out of a table, and out of what is joined from it.
    @Test func tombstonesEndTableEntries() throws {
        let builder = StreamBuilder("t")
        let prices = builder.table("right", Double.self)
        builder.stream("left", Int64.self).keyedByEvent().join(prices, keepsUnmatched: true).to("out", type: "t")
        let lines = try run(
            builder,
            [
                ("right", 1, "a", "2.5"), ("left", 2, "a", "1"), ("right", 3, "a", nil), ("left", 4, "a", "2"),
                ("right", 5, "a", "3"), ("left", 6, "a", "3"), ("left", 7, "b", "4"),
            ])
        #expect(
            lines == [
                #"out a {"left":1,"right":2.5}"#, #"out a {"left":2,"right":null}"#, #"out a {"left":3,"right":3}"#,
                #"out b {"left":4,"right":null}"#,
            ], "\(lines)")
    }

    /// What an operator throws, and what cannot be read as its type, goes to the dead letters with its place and raw data;
    /// the others go on.
    @Test func whatThrowsIsALetter() throws {
        struct Refusal: Error {}
        let builder = StreamBuilder("t")
        builder.stream("left", Int64.self).map { record in
            if record.value == 2 { throw Refusal() }
            return record.value * 10
        }.to("out", type: "t")
        let lines = try run(
            builder, [("left", 1, "a", "1"), ("left", 2, "a", "2"), ("left", 3, "a", #""x""#), ("left", 4, "a", "4")])
        #expect(lines.count == 4 && lines.first == "out a 10" && lines.last == "out a 40", "\(lines)")
        #expect(lines[1].hasPrefix("headrace.unfolded") && lines[1].contains("left/0@1"), "\(lines[1])")
        #expect(lines[1].contains("processor-failed") && lines[1].contains(#""raw":"2""#), "\(lines[1])")
        #expect(lines[2].contains("the data is no whole number"), "\(lines[2])")
    }

    @Test func topologiesAreDescribed() throws {
        let builder = StreamBuilder("shop")
        let orders = builder.stream("orders", JSON.self).keyed("customer") { $0.value["customer"]?.string }
        orders.windowed(by: .tumbling(milliseconds: 3_600_000)).measure(.count()).to("orders.hourly", type: "counted")
        let description = builder.description
        #expect(
            description.text == """
                topology shop
                  0 source 'orders'
                  1 key 'customer' <- 0
                  2 window 'tumbling 3600000 ms' <- 1  (count: count)  [store shop.2.tumbling 3600000 ms]
                  3 sink 'orders.hourly' <- 2
                """, "\(description.text)")
        #expect(description.json["nodes"]?.array?[3]["topic"] == "orders.hourly")
        #expect(
            description.mermaid == """
                flowchart LR
                    n0(["orders"])
                    n1["customer"]
                    n2["tumbling 3600000 ms"]
                    s2[("shop.2.tumbling 3600000 ms")]
                    n2 -.- s2
                    n3(["orders.hourly"])
                    n0 --> n1
                    n1 --> n2
                    n2 --> n3
                """, "\(description.mermaid)")
    }
}
