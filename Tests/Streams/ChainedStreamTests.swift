import Base
import EventLog
import Foundation
import RecordFormat
import Simulation
import Streams
import Testing

/// Folds that read what other folds write: whatever the races, checkpoints and crashes, the same comes out as when the
/// writer is through before its reader begins.
@Suite struct ChainedStreamTests {
    private static let end = Instant(milliseconds: 2000)

    /// Runs by partition and emits a window's count at every event, and once more when nothing came for a while.
    private static func counts() -> StreamBuilder {
        let builder = StreamBuilder("counts", runs: .byPartition)
        let left = builder.stream("left", Reading.self).keyedByEvent()
        left.windowed(by: .sliding(milliseconds: 9)).measure(.count()).to("mid", type: "count")
        left.windowed(by: .session(gap: 5)).measure(.count("session")).to("mid", type: "session")
        return builder
    }

    /// In which order the events of both topics came, by key, and how many in each window of its own.
    private static func orders() -> StreamBuilder {
        let builder = StreamBuilder("orders")
        let mid = builder.stream("mid", JSON.self).keyedByEvent()
        let right = builder.stream("right", Reading.self).keyedByEvent()
        let texts = mid.map("m") { record in "m" + (record.value["count"] == nil ? "s" : "") }.stream
            .merge(right.map("r") { _ in "r" }.stream)
        texts.keyedByEvent().reduce("order") { String(($0 + $1.value).suffix(12)) }.changes().to("out", type: "order")
        mid.windowed(by: .tumbling(milliseconds: 7)).measure(.count()).to("out", type: "window")
        return builder
    }

    private final class World {
        let scratch: ScratchDirectory
        let log: EmbeddedLog
        /// The tasks of the writer, and the reader.
        var runners: [TopologyRunner] = []

        init() throws {
            scratch = try ScratchDirectory()
            log = try EmbeddedLog.open(SimulatedVolume(seed: 1))
            for topic in ["left", "right", "mid", "counts.progress"] {
                try log.declare(TopicLayout(name: topic, partitions: 2))
            }
            let sides = ["counts", "orders"].flatMap { SideTopics(of: $0).all }
            for topic in sides + ["out"] { try log.declare(TopicLayout(name: topic, partitions: 2)) }
            runners = try (0..<3).map { try make($0) }
        }

        func make(_ number: Int) throws -> TopologyRunner {
            let isWriter = number < 2
            let builder = isWriter ? counts() : orders()
            let topology = Topology(
                name: builder.name, stages: [builder.build()], answers: [], attachments: [],
                side: SideTopics(of: builder.name),
                upstream: isWriter ? [:] : ["mid": Upstream(progress: "counts.progress", tasks: 2)],
                saysProgress: isWriter)
            return try TopologyRunner(
                topology: topology, task: isWriter ? number : nil, derived: [], log: log,
                database: try StateDatabase(path: "\(scratch.path)/state\(number)"),
                sink: LogSink(log: log, principal: "p\(number)"))
        }

        deinit { log.close() }

        func run(_ number: Int) throws -> Bool {
            var worked = false
            while try runners[number].runSlice() { worked = true }
            try runners[number].flush()
            return worked
        }

        func append(_ events: [(topic: String, partition: Int?, event: NewEvent)]) throws {
            if !events.isEmpty { _ = try log.append(LogAppend(principal: "p", events: events)) }
        }

        func result() throws -> [String] {
            var lines: [String] = []
            var ids: Set<String> = []
            for topic in ["mid", "out"] {
                for partition in 0..<2 {
                    try log.forEachEvent(TopicPartition(topic, partition)) { event in
                        let data = String(decoding: event.data ?? [], as: UTF8.self)
                        lines.append("\(topic)/\(partition) \(event.id) \(event.time.milliseconds) \(data)")
                        #expect(ids.insert(event.id).inserted, "\(event.id) twice")
                        return true
                    }
                }
            }
            return lines + runners.flatMap { $0.stateDigests().map { "\($0.name) \($0.digest.hex)" } }
        }
    }

    private static func event(_ lane: Int, _ number: Int, _ time: Int64, _ key: String) -> NewEvent {
        NewEvent(
            id: "\(lane)-\(number)", source: "s", type: "t", time: Instant(milliseconds: time), key: [UInt8](key.utf8),
            data: [UInt8](#"{"k":"\#(key)","x":1}"#.utf8))
    }

    private static func progress(_ lane: Int, _ through: Int64, isLast: Bool) -> NewEvent {
        NewEvent(
            id: "p\(lane)-\(through)-\(isLast)", source: "s", type: EventType.progress,
            time: Instant(milliseconds: through),
            data: JSON.object([
                "through": .string("\(isLast ? Self.end : Instant(milliseconds: through))"),
                "state": isLast ? "finished" : "active",
            ]).canonical)
    }

    /// Four lanes, two partitions of each topic, with keys by partition: what each of them holds in the end, progress too.
    private static func lanes(
        _ random: inout SeededRandom
    ) -> [[(topic: String, partition: Int?, event: NewEvent)]] {
        (0..<4).map { lane in
            var time: Int64 = 1000
            var events: [NewEvent] = []
            for number in 0..<Int.random(in: 0...20, using: &random) {
                let next = time + Int64.random(in: 0...6, using: &random)
                if next > time, Int.random(in: 0..<4, using: &random) == 0 {
                    events.append(progress(lane, next - 1, isLast: false))
                }
                time = next
                let key = ["a", "b"][Int.random(in: 0..<2, using: &random)] + "\(lane % 2)"
                events.append(event(lane, number, time, key))
            }
            events.append(progress(lane, time, isLast: true))
            return events.map { (lane < 2 ? "left" : "right", lane % 2, $0) }
        }
    }

    private static func live(_ seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let lanes = lanes(&random)
        let calm = try World()
        for lane in lanes { try calm.append(lane) }
        for number in 0..<3 { _ = try calm.run(number) }
        let wild = try World()
        var rest = lanes.map { $0[...] }
        while rest.contains(where: { !$0.isEmpty }) {
            let number = Int.random(in: 0..<3, using: &random)
            switch Int.random(in: 0..<8, using: &random) {
            case 0: wild.runners[number] = try wild.make(number)  // A crash: what was emitted since is emitted again.
            case 1: try wild.runners[number].checkpoint()
            case 2...4: _ = try wild.run(number)
            default:
                let lane = Int.random(in: 0..<4, using: &random)
                let part = rest[lane].prefix(Int.random(in: 0...5, using: &random))
                rest[lane] = rest[lane].dropFirst(part.count)
                try wild.append(Array(part))
            }
        }
        while try (0..<3).reduce(false, { try wild.run($1) || $0 }) {}
        let (expected, found) = (try calm.result(), try wild.result())
        let difference = zip(expected, found).first { $0 != $1 }
        #expect(found.count == expected.count && difference == nil, "seed \(seed): \(String(describing: difference))")
        #expect(lanes[0].count < 2 || found.contains { $0.hasPrefix("out/0") }, "seed \(seed)")
        for runner in calm.runners + wild.runners { #expect(runner.failures == 0 && runner.late == 0) }
    }

    @Test(arguments: 0..<4) func readersWaitForTheirWriters(part: UInt64) throws {
        for seed in part * 40..<(part + 1) * 40 { try Self.live(seed) }
    }
}
