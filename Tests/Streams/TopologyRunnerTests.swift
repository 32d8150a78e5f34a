import Base
import Catalog
import EventLog
import Foundation
import Gateway
import Privacy
import RecordFormat
import Streams
import Testing

/// Joins two inputs in the order they are fed and counts by key with a timer, so that any change of order shows.
private final class TraceStage: Stage {
    let name = "trace"
    let inputs = ["left", "right"]
    let outputs = ["out"]
    private let counts = StateStore<StateBlob>(name: "trace.counts")
    var stores: [any AnyStateStore] { [counts] }

    func process(_ event: StreamEvent, _ context: StageContext) throws {
        let key = event.id.prefix(1).description
        let count = counts.modify(key, default: StateBlob([])) { blob in
            blob.bytes.append(UInt8(event.topic == "left" ? 1 : 2))
            return blob.bytes.count
        }
        if count % 5 == 0 { context.setTimer(at: event.time + 3, key: "\(key)-\(count)") }
        emit("event \(event.topic) \(event.position) \(event.time.milliseconds) \(event.id)", context)
    }

    func fire(timer key: String, at time: Instant, _ context: StageContext) throws {
        emit("timer \(key) \(time.milliseconds)", context)
    }

    private var number = 0
    private func emit(_ text: String, _ context: StageContext) {
        number += 1
        context.emit(topic: "out", type: "t", id: text, data: JSON.string(text).canonical, source: name)
    }
}

@Suite struct TopologyRunnerTests {
    fileprivate final class Collector: DerivedSink {
        var lines: [String] = []
        /// Everything that was emitted, with its place and data.
        var all: [String] = []
        func take(_ event: DerivedEvent) {
            if event.topic == "out" { lines.append(event.event.id) }
            let data = String(decoding: event.event.data ?? [], as: UTF8.self)
            all.append("\(event.topic)@\(event.offset) \(event.event.id) \(event.event.time) \(data)")
        }
        func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) {}
        func flush(_ consumed: () -> [TopicPartition: Int64]) {}
    }

    struct Item {
        let topic: String
        let partition: Int
        let time: Int64
        let id: String
    }

    /// Random events in two topics of two partitions, each partition in time order, with progress.
    static func items(_ random: inout SeededRandom) -> [[Item]] {
        var partitions: [[Item]] = []
        var number = 0
        for topic in ["left", "right"] {
            for partition in 0..<2 {
                var time: Int64 = 1000
                partitions.append(
                    (0..<Int.random(in: 0...40, using: &random)).map { _ in
                        time += Int64.random(in: 0...4, using: &random)
                        number += 1
                        return Item(
                            topic: topic, partition: partition, time: time,
                            id: "\("abc".randomElement(using: &random)!)\(number)")
                    })
            }
        }
        return partitions
    }

    /// What event-time feeding means, written down naively: everything sorted by (time, rank, partition, offset), a timer
    /// after every event with a time up to its own.
    static func oracle(_ partitions: [[Item]]) -> [String] {
        var all: [(time: Int64, lane: Int, offset: Int, item: Item, position: String)] = []
        for (lane, items) in partitions.enumerated() {
            for (offset, item) in items.enumerated() {
                all.append((item.time, lane, offset, item, "\(item.topic)/\(item.partition)@\(offset)"))
            }
        }
        all.sort { ($0.time, $0.lane, $0.offset) < ($1.time, $1.lane, $1.offset) }
        var lines: [String] = []
        var counts: [String: Int] = [:]
        var timers: [(time: Int64, key: String)] = []
        func fire(before time: Int64) {
            for timer in timers.filter({ $0.time < time }).sorted(by: { ($0.time, $0.key) < ($1.time, $1.key) }) {
                lines.append("timer \(timer.key) \(timer.time)")
            }
            timers.removeAll { $0.time < time }
        }
        for entry in all {
            fire(before: entry.time)
            let key = String(entry.item.id.prefix(1))
            counts[key, default: 0] += 1
            if counts[key]! % 5 == 0 { timers.append((entry.time + 3, "\(key)-\(counts[key]!)")) }
            lines.append("event \(entry.item.topic) \(entry.position) \(entry.time) \(entry.item.id)")
        }
        fire(before: 100_000)
        return lines
    }

    /// However the partitions race into the log, however often the fold stops, checkpoints, crashes and goes on: the same
    /// output and the same digests.
    @Test(arguments: 0..<60) func orderIsThatOfEventTime(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        let partitions = Self.items(&random)
        let expected = Self.oracle(partitions)
        var digests: [[String]] = []
        for variant in 0..<3 {
            let scratch = try ScratchDirectory()
            let log = try EmbeddedLog.open(scratch.path + "/log")
            for topic in ["left", "right"] { try log.declare(TopicLayout(name: topic, partitions: 2)) }
            for topic in ["out", SideTopics.platform.digests, SideTopics.platform.unfolded, SideTopics.platform.late] {
                try log.declare(TopicLayout(name: topic, partitions: 1))
            }
            let collector = Collector()
            func runner() throws -> TopologyRunner {
                try TopologyRunner(
                    topology: Topology(name: "t", stages: [TraceStage()], answers: [], attachments: []),
                    derived: ["out"], log: log,
                    database: try StateDatabase(path: scratch.path + "/state"), sink: collector)
            }
            var live = try runner()
            var saved = 0
            var next = [0, 0, 0, 0]
            var written = [false, false, false, false]
            while written.contains(false) {
                let lane = Int.random(in: 0..<4, using: &random)
                guard !written[lane] else { continue }
                let count = min(
                    variant == 0 ? 100 : Int.random(in: 0...7, using: &random), partitions[lane].count - next[lane])
                let topic = lane < 2 ? "left" : "right"
                var events: [(topic: String, partition: Int?, event: NewEvent)] = partitions[lane][
                    next[lane]..<next[lane] + count
                ].map { item in
                    (
                        topic, lane % 2,
                        NewEvent(
                            id: item.id, source: "s", type: "t", time: Instant(milliseconds: item.time),
                            data: [UInt8]("{}".utf8))
                    )
                }
                next[lane] += count
                written[lane] = next[lane] == partitions[lane].count
                let through = written[lane] ? 99_999 : partitions[lane][next[lane]].time - 1
                // Offsets of the oracle count events only, so progress comes at the end or not at all.
                if written[lane] {
                    let data = "{\"through\":\"\(Instant(milliseconds: through))\",\"state\":\"finished\"}"
                    events.append(
                        (
                            topic, lane % 2,
                            NewEvent(
                                id: "progress-\(lane)", source: "s", type: EventType.progress,
                                time: Instant(milliseconds: min(through, partitions[lane].last?.time ?? 0)),
                                data: [UInt8](data.utf8))
                        ))
                }
                if !events.isEmpty { _ = try log.append(LogAppend(principal: "p", events: events)) }
                if variant == 0 { continue }
                while try live.runSlice() {}
                if variant == 2 {
                    switch Int.random(in: 0..<4, using: &random) {
                    case 0:
                        try live.checkpoint()
                        saved = collector.lines.count
                    case 1:
                        // A crash: what was emitted after the checkpoint is emitted again.
                        collector.lines.removeLast(collector.lines.count - saved)
                        live = try runner()
                    default: break
                    }
                }
            }
            while try live.runSlice() {}
            #expect(collector.lines == expected, "variant \(variant)")
            #expect(live.isDrained && live.late == 0)
            digests.append(live.stateDigests().map(\.digest.hex))
            log.close()
        }
        #expect(Set(digests).count == 1)
    }

    @Test func lateEventsGoToTheSide() throws {
        let scratch = try ScratchDirectory()
        let log = try EmbeddedLog.open(scratch.path + "/log")
        for topic in ["left", "right"] { try log.declare(TopicLayout(name: topic, partitions: 1)) }
        for topic in ["out", SideTopics.platform.late, SideTopics.platform.unfolded, SideTopics.platform.digests] {
            try log.declare(TopicLayout(name: topic, partitions: 1))
        }
        func event(_ id: String, _ time: Int64, _ data: String = "{}", _ type: String = "t") -> NewEvent {
            NewEvent(id: id, source: "s", type: type, time: Instant(milliseconds: time), data: [UInt8](data.utf8))
        }
        let progress = "{\"through\":\"1970-01-01T00:00:01Z\"}"
        let finished = "{\"through\":\"1970-01-01T00:00:05Z\",\"state\":\"finished\"}"
        _ = try log.append(
            LogAppend(
                principal: "p",
                events: [
                    ("left", 0, event("a1", 500)), ("left", 0, event("p1", 1000, progress, EventType.progress)),
                    ("left", 0, event("a2", 900)),
                    // Times of no calendar hold nobody up and move no clock.
                    ("left", 0, event("a4", 600_000_000_000_000)), ("left", 0, event("a5", .max)),
                    ("left", 0, event("a6", -100_000_000_000_000)),
                    ("left", 0, event("a3", 1500, "not json")),
                    ("left", 0, event("p2", 5000, finished, EventType.progress)),
                    ("right", 0, event("p3", 0, finished, EventType.progress)),
                ]))
        let sink = LogSink(log: log, principal: "fold")
        let runner = try TopologyRunner(
            topology: Topology(name: "t", stages: [TraceStage()], answers: [], attachments: []), derived: ["out"],
            log: log,
            database: try StateDatabase(path: nil), sink: sink)
        while try runner.runSlice() {}
        try runner.flush()
        #expect(runner.late == 4 && runner.failures == 1 && runner.now == Instant(milliseconds: 1500))
        var sides: [String] = []
        for topic in [SideTopics.platform.late, SideTopics.platform.unfolded] {
            try log.forEachEvent(TopicPartition(topic, 0)) { event in
                sides.append(try JSON(parsing: event.data ?? [])["position"]?.string ?? "")
                return true
            }
        }
        #expect(sides == ["left/0@2", "left/0@3", "left/0@4", "left/0@5", "left/0@6"])
        log.close()
    }

    /// Late events of several partitions, published one by one, in bursts and at once, folded as they come, with crashes and
    /// closed instants in between: a rebuild finds the same order, late topic and counts of late events included.
    @Test(arguments: 0..<60) func lateEventsHaveAnOrder(seed: Int) async throws {
        var random = SeededRandom(seed: UInt64(seed) &+ 7000)
        let scratch = try ScratchDirectory()
        let log = try EmbeddedLog.open(scratch.path + "/log")
        let clock = Monitor<Int64>(1_000_000)
        let gateway = Gateway(
            log: log, keys: try KeyStore(DiskVolume(scratch.path + "/keys")),
            clock: { Instant(milliseconds: clock.withLock { $0 }) })
        // Every other time the events of one topic may be some milliseconds behind.
        let lateness = seed % 2 == 0 ? "" : "\nlateness: 40ms"
        for definition in try Workspace.parse(
            "kind: Topic\nname: left\npartitions: 2\n---\nkind: Topic\nname: right\npartitions: 2\(lateness)",
            file: "t")
        { try gateway.declare(try TopicDefinition(definition), reserved: false) }
        for topic in ["out", SideTopics.platform.digests, SideTopics.platform.unfolded, SideTopics.platform.late] {
            try log.declare(TopicLayout(name: topic, partitions: 1))
        }
        func feed() {
            gateway.feed(
                inputs: ["left", "right"].flatMap { topic in (0..<2).map { TopicPartition(topic, $0) } }, claimed: [])
        }
        feed()
        func runner(_ path: String, _ sink: Collector) throws -> TopologyRunner {
            try TopologyRunner(
                topology: Topology(
                    name: "t", stages: [TraceStage()], answers: [], attachments: [],
                    sorted: lateness.isEmpty ? [] : ["right"]), derived: ["out"],
                log: log, database: try StateDatabase(path: scratch.path + path), sink: sink)
        }
        let collector = Collector()
        var live = try runner("/live", collector)
        var (saved, number, newest) = (0, 0, Int64(1000))
        func events() -> [(topic: String, event: NewEvent)] {
            (0..<Int.random(in: 1...4, using: &random)).map { _ in
                number += 1
                newest += Int64.random(in: 0...6, using: &random)
                // One in three is somewhere in the past.
                let time =
                    Int.random(in: 0..<3, using: &random) == 0 ? Int64.random(in: 900...newest, using: &random) : newest
                let topic = ["left", "right"][Int.random(in: 0..<2, using: &random)]
                let id = "\(["a", "b", "c"][number % 3])\(number)"
                return (
                    topic,
                    NewEvent(
                        id: id, source: "s", type: "t", time: Instant(milliseconds: time), data: [UInt8]("{}".utf8))
                )
            }
        }
        for _ in 0..<60 {
            if Int.random(in: 0..<4, using: &random) == 0 {
                let bursts = (0..<3).map { _ in events() }
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for burst in bursts { group.addTask { _ = try await gateway.publish(burst, principal: "p") } }
                    try await group.waitForAll()
                }
            } else {
                _ = try await gateway.publish(events(), principal: "p")
            }
            if Int.random(in: 0..<4, using: &random) == 0 {
                clock.withLock { $0 += 100 }
                try gateway.closeInstant()
            }
            if Bool.random(using: &random) { while try live.runSlice() {} }
            switch Int.random(in: 0..<12, using: &random) {
            case 0:
                try live.checkpoint()
                saved = collector.all.count
            case 1:
                collector.all.removeLast(collector.all.count - saved)
                live = try runner("/live", collector)
                feed()
                try gateway.resumeFeeds()
            default: break
            }
        }
        clock.withLock { $0 += 100 }
        try gateway.closeInstant()
        while try live.runSlice() {}
        let rebuilt = Collector()
        let again = try runner("/again", rebuilt)
        while try again.runSlice() {}
        let first = zip(collector.all, rebuilt.all).enumerated().first { $0.element.0 != $0.element.1 }
        #expect(
            collector.all.count == rebuilt.all.count && first == nil,
            "at \(first?.offset ?? -1): live \(first?.element.0 ?? ""), rebuilt \(first?.element.1 ?? "")")
        #expect(live.late == again.late && live.late > 5 && live.isDrained && again.isDrained)
        #expect(live.stateDigests().map(\.digest) == again.stateDigests().map(\.digest))
        log.close()
    }
}
