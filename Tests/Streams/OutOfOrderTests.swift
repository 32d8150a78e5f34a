import Base
import EventLog
import Foundation
import RecordFormat
import Simulation
import Streams
import Testing

/// Topics whose events come out of the order of their times, some of them too late: what a fold makes of them is what it
/// would make of those in time in their order.
@Suite struct OutOfOrderTests {
    private enum Entry {
        case event(Sample, isLate: Bool)
        case progress(Int64, String)
    }

    /// What a lane's events become when they may be so many milliseconds behind the newest.
    private static func lane(_ samples: [Sample], lateness: Int64, _ random: inout SeededRandom) -> [Entry] {
        let order = samples.map { ($0, $0.time + Int64.random(in: 0...lateness * 2 + 4, using: &random)) }
            .enumerated().sorted { ($0.element.1, $0.offset) < ($1.element.1, $1.offset) }.map(\.element.0)
        var list: [Entry] = []
        var through = Int64.min
        var newest = Int64.min
        for sample in order {
            list.append(.event(sample, isLate: sample.time <= through))
            newest = max(newest, sample.time)
            guard Bool.random(using: &random), newest - lateness - 1 > through else { continue }
            through = newest - lateness - 1
            list.append(.progress(through, "active"))
        }
        list.append(.progress(TypedStreamTests.end, "finished"))
        return list
    }

    private static func event(_ entry: Entry, lane: Int, number: Int) -> NewEvent {
        switch entry {
        case .event(let sample, _):
            NewEvent(
                id: "\(lane)-\(number)", source: "s", type: "t", time: Instant(milliseconds: sample.time),
                key: [UInt8](sample.key.utf8), data: [UInt8](sample.json.utf8))
        case .progress(let through, let state):
            NewEvent(
                id: "p\(lane)-\(number)", source: "s", type: EventType.progress, time: Instant(milliseconds: through),
                data: [UInt8]("{\"through\":\"\(Instant(milliseconds: through))\",\"state\":\"\(state)\"}".utf8))
        }
    }

    private static func runner(
        _ plan: Plan, _ log: EmbeddedLog, _ sink: Collector, path: String? = nil, after takeover: Takeover? = nil
    ) throws -> TopologyRunner {
        let topology = Topology(
            name: "t", stages: [plan.build().build()], answers: [], attachments: [],
            generation: takeover == nil ? 1 : 2, takeovers: takeover.map { [$0] } ?? [], sorted: ["left", "right"])
        return try TopologyRunner(
            topology: topology, derived: ["out"], log: log, database: try StateDatabase(path: path, memory: 0),
            sink: sink)
    }

    /// Live with crashes, by another topology that takes over, and again from the beginning.
    @Test(arguments: 0..<10) func theOrderIsThatOfTheTimes(part: Int) throws {
        var lates = 0
        var moved = 0
        for seed in part * 30..<part * 30 + 30 {
            var random = SeededRandom(seed: UInt64(seed))
            let plan = Plan(&random)
            let lateness = Int64.random(in: 0...12, using: &random)
            let lanes = TypedStreamTests.samples(&random).map { Self.lane($0, lateness: lateness, &random) }
            var inTime: [(time: Int64, lane: Int, offset: Int, sample: Sample)] = []
            var late = 0
            for (lane, entries) in lanes.enumerated() {
                var newest = Int64.min
                for (offset, entry) in entries.enumerated() {
                    guard case .event(let sample, let isLate) = entry else { continue }
                    if isLate { late += 1 } else { inTime.append((sample.time, lane, offset, sample)) }
                    if sample.time < newest { moved += 1 }
                    newest = max(newest, sample.time)
                }
            }
            lates += late
            inTime.sort { ($0.time, $0.lane, $0.offset) < ($1.time, $1.lane, $1.offset) }
            let expected = plan.expected(inTime.map(\.sample), end: TypedStreamTests.end).sorted()

            var options = EmbeddedLog.Options()
            options.hasThreads = false
            let log = try EmbeddedLog.open(SimulatedVolume(seed: 1), options: options)
            defer { log.close() }
            for topic in ["left", "right"] { try log.declare(TopicLayout(name: topic, partitions: 2)) }
            let scratch = try ScratchDirectory()
            let collector = Collector()
            var live = try Self.runner(plan, log, collector, path: scratch.path + "/state")
            var saved = 0
            var next = [0, 0, 0, 0]
            // Somewhere on the way the same topology takes over from itself.
            let turn = Int.random(in: 0..<40, using: &random)
            var step = 0
            var takeover: Takeover?
            let own = { (sink: [String]) in sink.filter { !$0.contains(".late") } }
            while let lane = (0..<4).filter({ next[$0] < lanes[$0].count }).randomElement(using: &random) {
                for _ in 0..<Int.random(in: 1...6, using: &random) where next[lane] < lanes[lane].count {
                    let event = Self.event(lanes[lane][next[lane]], lane: lane, number: next[lane])
                    log.append(
                        LogAppend(principal: "p", events: [(lane < 2 ? "left" : "right", lane % 2, event)])
                    ) { _ in }
                    next[lane] += 1
                }
                log.commitReady()
                while try live.runSlice() {}
                step += 1
                if step == turn {
                    try live.checkpoint()
                    let found = try Takeover(try StateDatabase(path: scratch.path + "/state", isKept: true), of: nil)
                    takeover = found
                    #expect(found.flatMap { Takeover($0.json) } == found)
                    live = try Self.runner(plan, log, collector, path: scratch.path + "/next", after: takeover)
                    saved = collector.lines.count
                    continue
                }
                switch Int.random(in: 0..<4, using: &random) {
                case 0:
                    try live.checkpoint()
                    saved = collector.lines.count
                case 1:
                    // A crash: what came since the checkpoint is made again.
                    let path = scratch.path + (takeover == nil ? "/state" : "/next")
                    live = try Self.runner(plan, log, collector, path: path, after: takeover)
                    collector.lines.removeLast(collector.lines.count - saved)
                default: break
                }
            }
            while try live.runSlice() {}
            #expect(live.isDrained && !live.isSilent, "seed \(seed): \(live.missing)")
            let (ours, alone) = (own(collector.lines), Collector())
            if ours.sorted() != expected {
                let difference = expected.difference(from: ours.sorted())
                Issue.record("seed \(seed): \(plan) \(difference.prefix(4).map { "\($0)" })")
            }
            let again = try Self.runner(plan, log, alone)
            while try again.runSlice() {}
            #expect(again.late == Int64(late) && live.late == again.late, "seed \(seed)")
            #expect(alone.lines == collector.lines, "seed \(seed): \(plan)")
            #expect(live.stateDigests().map(\.digest) == again.stateDigests().map(\.digest), "seed \(seed)")
        }
        #expect(lates > 20 && moved > 100, "\(lates) late, \(moved) out of order")
    }

    /// More waits than batches are kept of: all of it is folded, in its order.
    @Test func moreWaitsThanIsKept() throws {
        var random = SeededRandom(seed: 12)
        let log = try EmbeddedLog.open(SimulatedVolume(seed: 1), options: EmbeddedLog.Options())
        defer { log.close() }
        try log.declare(TopicLayout(name: "left", partitions: 1))
        // The first half of every 400 comes behind the second one; hexadecimal noise is halved by compression.
        let count = 3200
        for number in 0..<count {
            let time = Int64(number / 400 * 400 + (number + 200) % 400)
            let noise = (0..<3000).map { _ in String(random.next(), radix: 16) }.joined()
            let event = NewEvent(
                id: "e\(number)", source: "s", type: "t", time: Instant(milliseconds: time), key: [0x6B],
                data: [UInt8]("\"\(time):\(noise)\"".utf8))
            _ = try log.append(LogAppend(principal: "p", events: [("left", 0, event)]))
        }
        let end = Self.event(.progress(TypedStreamTests.end, "finished"), lane: 0, number: 0)
        _ = try log.append(LogAppend(principal: "p", events: [("left", 0, end)]))
        let builder = StreamBuilder("t")
        builder.stream("left", String.self).map { Double($0.value.prefix { $0 != ":" }) ?? -1 }
            .to("out", type: "t")
        let collector = Collector()
        let topology = Topology(
            name: "t", stages: [builder.build()], answers: [], attachments: [], sorted: ["left"])
        let runner = try TopologyRunner(
            topology: topology, derived: ["out"], log: log, database: try StateDatabase(path: nil), sink: collector)
        while try runner.runSlice() {}
        #expect(runner.folded == Int64(count) && runner.failures == 0 && collector.lines.count == count)
        #expect(
            errorCode {
                try runner.end(
                    at: .position(Position("left/0@1") ?? Position(topic: "", partition: 0, offset: 0, sequence: nil)))
            } == "no-order")
    }
}
