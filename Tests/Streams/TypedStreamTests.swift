import Base
import EventLog
import Foundation
import RecordFormat
import Simulation
import Streams
import Testing

/// How long a key has been silent, for a processor of one's own.
struct Silence: StreamValue {
    var count: Int64 = 0
    var last: Int64 = 0

    init() {}
    init(_ fields: FieldReader) throws {
        count = try fields.integer("count")
        last = try fields.integer("last")
    }
    func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.key("count")
        writer.value(count)
        writer.key("last")
        writer.value(last)
        writer.endObject()
    }
}

/// A random topology: some steps that change the streams, then what is made of them.
struct Plan {
    enum Step: CaseIterable { case filter, map, flatMap, branch, byText }
    enum End {
        case window(WindowShape, Emission)
        case streamJoin(before: Int64, after: Int64)
        case tableJoin(within: Int64?)
        case tables, reduce, silence(Int64), suppress(Int64)
    }

    let steps: [Step]
    let end: End
    let keeps: Bool

    init(_ random: inout SeededRandom) {
        steps = (0..<Int.random(in: 0...3, using: &random)).map { _ in
            Step.allCases[Int.random(in: 0..<5, using: &random)]
        }
        keeps = Bool.random(using: &random)
        let size = Int64.random(in: 1...12, using: &random)
        let shapes: [WindowShape] = [
            .tumbling(milliseconds: size),
            .hopping(milliseconds: size, every: Int64.random(in: 1...size, using: &random)),
            .session(gap: Int64.random(in: 0...5, using: &random)), .sliding(milliseconds: size),
        ]
        let emission: Emission = Bool.random(using: &random) ? .whenClosed : .onEveryEvent
        end =
            switch Int.random(in: 0..<10, using: &random) {
            case let shape where shape < 4: .window(shapes[shape], emission)
            case 4:
                .streamJoin(
                    before: Int64.random(in: -2...6, using: &random), after: Int64.random(in: -2...6, using: &random))
            case 5: .tableJoin(within: Bool.random(using: &random) ? Int64.random(in: 0...6, using: &random) : nil)
            case 6: .tables
            case 7: .reduce
            case 8: .suppress(Int64.random(in: 1...6, using: &random))
            default: .silence(Int64.random(in: 0...5, using: &random))
            }
    }

    private func steps(_ stream: EventStream<Reading>) -> KeyedStream<Reading> {
        var stream = stream
        var keyed = stream.keyed { $0.value.key }
        for step in steps {
            switch step {
            case .filter: stream = stream.filter { $0.value.x != nil }
            case .map:
                stream = stream.map {
                    Reading(key: $0.value.key, x: $0.value.x.map { $0 * 2 }, text: $0.value.text)
                }
            case .flatMap:
                stream = stream.flatMap { record in
                    record.value.text == "u"
                        ? [] : ((record.value.x ?? 0) < 0 ? [record.value, record.value] : [record.value])
                }
            case .branch:
                let parts = stream.branch("sign", { ($0.value.x ?? 0) < 0 }, { $0.value.text == "v" })
                stream = parts[2].merge(parts[0]).merge(parts[1])
            case .byText: break
            }
            keyed = stream.keyed { steps.contains(.byText) ? $0.value.text : $0.value.key }
        }
        return keyed
    }

    func build(_ parallelism: StreamBuilder.Parallelism = .single) -> StreamBuilder {
        let builder = StreamBuilder("t", runs: parallelism)
        let left = steps(builder.stream("left", Reading.self))
        let right = steps(builder.stream("right", Reading.self))
        let both = { left.stream.merge(right.stream).keyedByEvent() }
        switch end {
        case .window(let shape, let emission):
            let m = TypedOracle.measures
            both().windowed(by: shape).measure(
                m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8], m[9], m[10], emits: emission
            ).to("out", type: "t")
        case .streamJoin(let before, let after):
            left.join(right, before: before, after: after, keepsUnmatched: keeps).to("out", type: "t")
        case .tableJoin(let within):
            left.join(right.table(), keepsUnmatched: keeps, within: within).to("out", type: "t")
        case .tables: left.table().join(right.table(), keepsUnmatched: keeps).changes().to("out", type: "t")
        case .reduce, .suppress:
            let table = both().reduce { sum, record in
                Reading(key: record.key, x: (sum.x ?? 0) + (record.value.x ?? 0), text: record.value.text)
            }
            if case .suppress(let every) = end {
                table.changes(atMostEvery: every).to("out", type: "t")
            } else {
                table.changes().to("out", type: "t")
            }
        case .silence(let delay):
            both().process(
                "silence", state: Silence(), emits: Int64.self,
                timer: { _, at, state, out in
                    guard state.last + delay == at.milliseconds else { return }
                    out.emit(state.count)
                    out.forget()
                },
                { record, state, out in
                    state.count += 1
                    state.last = record.time.milliseconds
                    out.setTimer(at: record.time + delay)
                }
            ).to("out", type: "t")
        }
        return builder
    }

    func expected(_ samples: [Sample], end last: Int64) -> [String] {
        var entries: [TypedOracle.Entry] = []
        for sample in samples {
            var values = [Reading(key: sample.key, x: sample.x, text: sample.text)]
            for step in steps {
                switch step {
                case .filter: values = values.filter { $0.x != nil }
                case .map: values = values.map { Reading(key: $0.key, x: $0.x.map { $0 * 2 }, text: $0.text) }
                case .flatMap:
                    values = values.flatMap { $0.text == "u" ? [] : (($0.x ?? 0) < 0 ? [$0, $0] : [$0]) }
                case .branch, .byText: break
                }
            }
            for value in values {
                guard let key = steps.contains(.byText) ? value.text : value.key else { continue }
                entries.append(
                    .init(time: sample.time, key: key, value: value, side: sample.topic, order: entries.count))
            }
        }
        return switch end {
        case .window(let shape, let emission): TypedOracle.windows(entries, shape, emission, end: last)
        case .streamJoin(let before, let after):
            TypedOracle.streamJoin(entries, before: before, after: after, keeps: keeps, end: last)
        case .tableJoin(let within): TypedOracle.tableJoin(entries, within: within, keeps: keeps)
        case .tables: TypedOracle.tables(entries, keeps: keeps)
        case .reduce: TypedOracle.reductions(entries.map { $0 })
        case .silence(let delay): TypedOracle.silences(entries, delay: delay, end: last)
        case .suppress(let every): TypedOracle.suppressed(entries, every: every, end: last)
        }
    }
}

/// What a random topology emitted.
final class Collector: DerivedSink {
    var lines: [String] = []
    var ids: [String] = []
    var keys: [[UInt8]] = []
    func take(_ event: DerivedEvent) {
        guard event.topic != SideTopics.platform.digests else { return }
        keys.append(event.event.key ?? [])
        let key = String(decoding: event.event.key ?? [], as: UTF8.self)
        let data = String(decoding: event.event.data ?? [], as: UTF8.self)
        let place = event.topic == "out" ? "" : "\(event.topic) "
        lines.append(place + TypedOracle.line(key, event.event.time.milliseconds, data))
        ids.append(event.event.id)
    }
    func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) {}
    func flush(_ consumed: () -> [TopicPartition: Int64]) {}
}

@Suite struct TypedStreamTests {
    static func samples(_ random: inout SeededRandom) -> [[Sample]] {
        (0..<4).map { lane in
            var time: Int64 = 1000
            return (0..<Int.random(in: 0...25, using: &random)).map { _ in
                time += Int64.random(in: 0...4, using: &random)
                let x = Double(Int.random(in: -20...20, using: &random)) / 8
                return Sample(
                    topic: lane / 2, partition: lane % 2, time: time,
                    key: ["a", "b", "c"][Int.random(in: 0..<3, using: &random)],
                    x: Int.random(in: 0..<6, using: &random) == 0 ? nil : x,
                    text: [nil, "u", "v", "w"][Int.random(in: 0..<4, using: &random)])
            }
        }
    }

    /// What a topology that has ended should not keep.
    private struct Held {
        weak var store: (any AnyStateStore)?
    }

    /// One in which nothing happens, one with crashes, and one with crashes after which another node goes on, or the same.
    private enum Life { case calm, crashing, moving }

    /// Where nodes keep their state, and what they tell each other of it.
    private struct Nodes {
        let scratch: ScratchDirectory
        let log: EmbeddedLog
        let owner = Monitor(OwnedWriter.Owner())
        static let place = TopicPartition("t.state", 0)

        init() throws {
            scratch = try ScratchDirectory()
            var options = EmbeddedLog.Options()
            options.hasThreads = false
            log = try EmbeddedLog.open(SimulatedVolume(seed: 2), options: options)
            try log.declare(TopicLayout(name: Self.place.topic, partitions: 1, deduplication: .never))
        }

        func take(_ runner: (StateDatabase) throws -> TopologyRunner, _ random: inout SeededRandom, moves: Bool) throws
            -> TopologyRunner
        {
            let number = moves ? Int.random(in: 0..<3, using: &random) : 0
            // Half of them keep nothing in memory that is on the disk.
            let database = try StateDatabase(
                path: scratch.path + "/state\(number)",
                memory: Bool.random(using: &random) ? 0 : StateDatabase.defaultMemory)
            guard moves else { return try runner(database) }
            let lucks = (0..<64).map { _ in Int.random(in: 0..<8, using: &random) }
            var commit = 0
            let writer = OwnedWriter(log: log, owner: owner) {
                commit += 1
                return lucks[commit % 64] == 0 ? .aborted : lucks[commit % 64] == 1 ? .unheard : nil
            }
            // A checkpoint may be larger than what is kept of it, and what is under way may be left and begun again.
            let (memory, isLeft) = (
                [0, 200, 1 << 20][Int.random(in: 0..<3, using: &random)], Bool.random(using: &random)
            )
            func copy() throws -> StateCopy {
                try StateCopy(
                    log: log, place: Self.place, database: database, identity: Self.identity, memory: memory)
            }
            if isLeft { _ = try copy().advance() }
            try copy().catchUp()
            let made = try runner(database)
            made.changelog = ChangelogWriter(writer, name: "t", place: Self.place, identity: Self.identity)
            return made
        }

        static let identity = Digest.of([1, 2, 3])
    }

    /// One life of the topology: events race into the log, the fold runs now and then, checkpoints and crashes.
    private static func run(
        _ plan: Plan, _ lanes: [[Sample]], _ random: inout SeededRandom, _ life: Life
    ) throws -> (lines: [String], ids: [String], digests: [String], held: [Held]) {
        let crashes = life != .calm
        let nodes = try Nodes()
        var options = EmbeddedLog.Options()
        options.hasThreads = false
        let log = try EmbeddedLog.open(SimulatedVolume(seed: 1), options: options)
        for topic in ["left", "right"] { try log.declare(TopicLayout(name: topic, partitions: 2)) }
        let collector = Collector()
        var held: [Held] = []
        func runner() throws -> TopologyRunner {
            let stage = plan.build().build()
            held += stage.stores.map { Held(store: $0) }
            let topology = Topology(
                name: "t", stages: [stage], answers: [], attachments: [],
                identity: life == .moving ? Nodes.identity : nil)
            return try nodes.take(
                { database in
                    try TopologyRunner(
                        topology: topology, derived: ["out"], log: log, database: database, sink: collector)
                }, &random, moves: life == .moving)
        }
        var live = try runner()
        var saved = 0
        // Lines when the checkpoint under way began.
        var begun = 0
        var commits = 0
        func crash() throws {
            live = try runner()
            // A checkpoint that others know of counts, whatever its node heard.
            let known = nodes.owner.withLock { $0.commits }
            if known > commits { saved = begun }
            commits = known
            collector.lines.removeLast(collector.lines.count - saved)
            collector.ids.removeLast(collector.ids.count - saved)
        }
        func advance(toTheEnd: Bool = false) throws {
            do {
                repeat { try live.advanceCheckpoint(waits: toTheEnd) } while toTheEnd && live.isCheckpointing
            } catch let error as EventLogError where error.code != "test" {
                return try crash()
            }
            guard !live.isCheckpointing else { return }
            saved = begun
            commits = nodes.owner.withLock { $0.commits }
        }
        var next = [0, 0, 0, 0]
        var open = [0, 1, 2, 3]
        while !open.isEmpty {
            let lane = open[Int.random(in: 0..<open.count, using: &random)]
            let count = min(crashes ? Int.random(in: 0...7, using: &random) : 100, lanes[lane].count - next[lane])
            let part = lanes[lane][next[lane]..<next[lane] + count]
            next[lane] += count
            let isLast = next[lane] == lanes[lane].count
            let topic = lane < 2 ? "left" : "right"
            var events: [(topic: String, partition: Int?, event: NewEvent)] = part.enumerated().map { number, sample in
                (
                    topic, lane % 2,
                    NewEvent(
                        id: "\(lane)-\(next[lane] - count + number)", source: "s", type: "t",
                        time: Instant(milliseconds: sample.time), key: [UInt8](sample.key.utf8),
                        data: [UInt8](sample.json.utf8))
                )
            }
            if isLast {
                open.removeAll { $0 == lane }
                let data = "{\"through\":\"\(Instant(milliseconds: Self.end))\",\"state\":\"finished\"}"
                let time = Instant(milliseconds: lanes[lane].last?.time ?? 0)
                events.append(
                    (
                        topic, lane % 2,
                        NewEvent(
                            id: "p\(lane)", source: "s", type: EventType.progress, time: time, data: [UInt8](data.utf8))
                    ))
            }
            if !events.isEmpty {
                log.append(LogAppend(principal: "p", events: events)) { _ in }
                log.commitReady()
            }
            while crashes, try live.runSlice() {
                if live.isCheckpointing, Bool.random(using: &random) { try advance() }
            }
            switch crashes ? Int.random(in: 0..<6, using: &random) : 9 {
            case 0:
                if live.isCheckpointing { try advance(toTheEnd: true) }
                guard try live.beginCheckpoint() else { break }
                begun = collector.lines.count
                try advance(toTheEnd: true)
            case 2, 3:
                // Brought to its end piece by piece, while events are folded on, or lost with the crash.
                guard try live.beginCheckpoint() else { break }
                begun = collector.lines.count
            case 1:
                if live.isWritingCheckpoint, life == .crashing { try advance(toTheEnd: true) }
                try crash()
            default: break
            }
        }
        while try live.runSlice() {}
        #expect(live.isDrained && live.late == 0 && live.failures == 0)
        log.close()
        return (collector.lines, collector.ids, live.stateDigests().map(\.digest.hex), held)
    }

    /// Three tasks that share the keys: what they write together, each key by its own task.
    private static func share(_ plan: Plan, _ lanes: [[Sample]]) throws -> [String] {
        var options = EmbeddedLog.Options()
        options.hasThreads = false
        let log = try EmbeddedLog.open(SimulatedVolume(seed: 1), options: options)
        for topic in ["left", "right"] { try log.declare(TopicLayout(name: topic, partitions: 2)) }
        for (lane, samples) in lanes.enumerated() {
            let topic = lane < 2 ? "left" : "right"
            var events: [(topic: String, partition: Int?, event: NewEvent)] = samples.enumerated().map {
                number, sample in
                (
                    topic, lane % 2,
                    NewEvent(
                        id: "\(lane)-\(number)", source: "s", type: "t", time: Instant(milliseconds: sample.time),
                        key: [UInt8](sample.key.utf8), data: [UInt8](sample.json.utf8))
                )
            }
            let data = "{\"through\":\"\(Instant(milliseconds: Self.end))\",\"state\":\"finished\"}"
            events.append(
                (
                    topic, lane % 2,
                    NewEvent(
                        id: "p\(lane)", source: "s", type: EventType.progress,
                        time: Instant(milliseconds: samples.last?.time ?? 0), data: [UInt8](data.utf8))
                ))
            log.append(LogAppend(principal: "p", events: events)) { _ in }
            log.commitReady()
        }
        var lines: [String] = []
        var folded: Int64 = 0
        for task in 0..<3 {
            let builder = plan.build(.byKey(tasks: 3))
            #expect(builder.unpartitioned.isEmpty && builder.rekeyed.isEmpty)
            let collector = Collector()
            let runner = try TopologyRunner(
                topology: Topology(name: "t", stages: [builder.build()], answers: [], attachments: [], keyTasks: 3),
                task: task, derived: ["out"], log: log, database: try StateDatabase(path: nil), sink: collector)
            while try runner.runSlice() {}
            #expect(runner.isDrained)
            folded += runner.folded
            lines += collector.lines
            #expect(collector.keys.allSatisfy { murmur2Partition($0, partitions: 3) == task })
        }
        #expect(folded == lanes.reduce(0) { $0 + Int64($1.count) })
        log.close()
        return lines
    }

    static let end: Int64 = 1080

    /// Random topologies over random events, in three lives, and by tasks that share the keys: what comes out is what the naive oracle says, all lives say the
    /// same in the same order under the same ids, no id comes twice, and the states are equal.
    @Test(arguments: 0..<20) func topologiesAreTheOracle(part: Int) throws {
        for seed in part * 30..<part * 30 + 30 {
            var random = SeededRandom(seed: UInt64(seed))
            let plan = Plan(&random)
            let lanes = Self.samples(&random)
            let order = lanes.enumerated().flatMap { lane, list in
                list.enumerated().map { (time: $1.time, lane: lane, offset: $0, sample: $1) }
            }.sorted { ($0.time, $0.lane, $0.offset) < ($1.time, $1.lane, $1.offset) }
            let expected = plan.expected(order.map(\.sample), end: Self.end)
            let calm = try Self.run(plan, lanes, &random, .calm)
            let wild = try Self.run(plan, lanes, &random, .crashing)
            let moved = try Self.run(plan, lanes, &random, .moving)
            // Replays and questions about the past build topologies by the dozen.
            #expect(
                (calm.held + wild.held + moved.held).allSatisfy { $0.store == nil },
                "seed \(seed): \(plan) is still there")
            let (ours, theirs) = (calm.lines.sorted(), expected.sorted())
            if ours != theirs {
                let difference = theirs.difference(from: ours)
                Issue.record("seed \(seed): \(plan) \(difference.prefix(4).map { "\($0)" })")
            }
            #expect(wild.lines == calm.lines && wild.ids == calm.ids, "seed \(seed): \(plan)")
            #expect(Set(calm.ids).count == calm.ids.count, "seed \(seed)")
            #expect(wild.digests == calm.digests, "seed \(seed): \(plan)")
            #expect(moved.lines == calm.lines && moved.ids == calm.ids, "seed \(seed), moving: \(plan)")
            #expect(moved.digests == calm.digests, "seed \(seed), moving: \(plan)")
            #expect(try Self.share(plan, lanes).sorted() == theirs, "seed \(seed), sharing keys: \(plan)")
        }
    }
}
