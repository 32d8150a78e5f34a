import Base
import EventLog
import Foundation
import RecordFormat
import Simulation
import Streams
import Testing

/// An event at which an operator throws leaves nothing but its letter.
@Suite struct UndoneEventTests {
    private struct Bad: Error {}

    private static func refuse(_ value: Reading) throws(Bad) {
        if value.text == "bad" { throw Bad() }
    }

    /// Every kind of state, timer and emission, with something behind each that throws.
    private static func build() -> StreamBuilder {
        let builder = StreamBuilder("t")
        let left = builder.stream("left", Reading.self).keyed { $0.value.key }
        let right = builder.stream("right", Reading.self).keyed { $0.value.key }
        left.stream.to("out", type: "t")
        let sums = left.reduce { sum, record in
            Reading(key: record.key, x: (sum.x ?? 0) + (record.value.x ?? 0), text: record.value.text)
        }
        sums.changes().to("out", type: "t")
        sums.changes(atMostEvery: 4).to("out", type: "t")
        sums.join(right.table("rights")).changes("pairs").to("out", type: "t")
        left.windowed(by: .sliding(milliseconds: 5))
            .measure(.count(), .of(.sum, "sum") { $0.x }, .of(.max, "max") { $0.x }, .distinct("texts") { $0.text })
            .to("out", type: "t")
        left.windowed(by: .hopping(milliseconds: 6, every: 2)).measure(.count(), .of(.mean, "mean") { $0.x })
            .to("out", type: "t")
        right.windowed(by: .session(gap: 3)).measure(.count(), .of(.last, "last") { $0.x }).to("out", type: "t")
        left.join(right, before: 3, after: 3, keepsUnmatched: true).to("out", type: "t")
        left.join(right.table("known"), keepsUnmatched: true).to("out", type: "t")
        let process: (KeyedStream<Reading>, String) -> EventStream<Int64> = { stream, name in
            stream.process(
                name, state: Silence(), emits: Int64.self,
                timer: { _, _, state, out in out.emit(state.count) },
                { record, state, out in
                    state.count += 1
                    out.emit(state.count)
                    out.setTimer(at: record.time + 4)
                    if state.count % 5 == 0 { out.forget() }
                    try refuse(record.value)
                })
        }
        process(left, "counts").to("out", type: "t")
        left.stream.merge(right.stream).flatMap { [$0.value, $0.value] }
            .map { record throws(Bad) -> Reading in
                try refuse(record.value)
                return record.value
            }.to("out", type: "t")
        process(right, "others").to("out", type: "t")
        return builder
    }

    private static func life(
        _ samples: [Sample], _ random: inout SeededRandom, _ path: String
    ) throws -> (lines: [String], letters: Int, digests: [String], again: [String]) {
        var options = EmbeddedLog.Options()
        options.hasThreads = false
        let log = try EmbeddedLog.open(SimulatedVolume(seed: 1), options: options)
        for topic in ["left", "right"] { try log.declare(TopicLayout(name: topic, partitions: 1)) }
        let collector = Collector()
        func runner() throws -> TopologyRunner {
            try TopologyRunner(
                topology: Topology(name: "t", stages: [build().build()], answers: [], attachments: []),
                derived: ["out"], log: log, database: try StateDatabase(path: path, memory: 0), sink: collector)
        }
        let live = try runner()
        func append(_ id: String, _ topic: String, _ type: String, _ time: Int64, _ key: String?, _ data: String) {
            let event = NewEvent(
                id: id, source: "s", type: type, time: Instant(milliseconds: time), key: key.map { [UInt8]($0.utf8) },
                data: [UInt8](data.utf8))
            log.append(LogAppend(principal: "p", events: [(topic, 0, event)])) { _ in }
        }
        for (number, sample) in samples.enumerated() {
            append("\(number)", sample.topic == 0 ? "left" : "right", "t", sample.time, sample.key, sample.json)
            guard Int.random(in: 0..<8, using: &random) == 0 else { continue }
            for topic in ["left", "right"] {
                let through = Instant(milliseconds: sample.time - 1)
                append(
                    "p\(topic)\(number)", topic, EventType.progress, sample.time, nil,
                    "{\"through\":\"\(through)\",\"state\":\"active\"}")
            }
            log.commitReady()
            while try live.runSlice() {}
            if live.isCheckpointing { try live.advanceCheckpoint(waits: true) }
            try live.beginCheckpoint()
        }
        for topic in ["left", "right"] {
            append(
                "p" + topic, topic, EventType.progress, 2000, nil,
                "{\"through\":\"\(Instant(milliseconds: 2000))\",\"state\":\"finished\"}")
        }
        log.commitReady()
        while try live.runSlice() {}
        try live.checkpoint()
        #expect(live.isDrained && live.late == 0)
        let again = try runner()
        defer { log.close() }
        return (
            collector.lines.filter { !$0.contains("unfolded") }, Int(live.failures),
            live.stateDigests().map(\.digest.hex), again.stateDigests().map(\.digest.hex)
        )
    }

    @Test func whatThrowsLeavesNothing() throws {
        #expect(Self.build().mayThrowBehindEffects)
        for seed in 0..<40 {
            var random = SeededRandom(seed: UInt64(seed))
            let scratch = try ScratchDirectory()
            var time: Int64 = 1000
            let samples = (0..<90).map { _ in
                time += Int64.random(in: 0...3, using: &random)
                return Sample(
                    topic: Int.random(in: 0...1, using: &random), partition: 0, time: time,
                    key: ["a", "b", "c"].randomElement(using: &random) ?? "",
                    x: Double(Int.random(in: -9...9, using: &random)),
                    text: ["u", "v", "bad", nil].randomElement(using: &random) ?? nil)
            }
            let good = samples.filter { $0.text != "bad" }
            let whole = try Self.life(samples, &random, scratch.path + "/whole")
            let clean = try Self.life(good, &random, scratch.path + "/clean")
            #expect(whole.lines == clean.lines, "seed \(seed)")
            #expect(whole.digests == clean.digests && whole.again == whole.digests, "seed \(seed)")
            #expect(whole.letters == samples.count - good.count && clean.letters == 0, "seed \(seed)")
        }
    }

    /// Nothing is kept for undoing where nothing can throw too late.
    @Test func whatCannotThrowTooLateCostsNothing() {
        func needs(_ body: (StreamBuilder) -> Void) -> Bool {
            let builder = StreamBuilder("t")
            body(builder)
            return builder.mayThrowBehindEffects
        }
        #expect(
            !needs { builder in
                let stream = builder.stream("left", Reading.self)
                    .map { record throws(Bad) -> Reading in
                        try Self.refuse(record.value)
                        return record.value
                    }.keyed { $0.value.key }
                stream.windowed(by: .sliding(milliseconds: 5)).measure(.of(.sum, "x") { $0.x }).map { $0.value }
                    .to("a", type: "t")
                stream.table().changes().to("b", type: "t")
                stream.process("count", state: Silence(), emits: Int64.self) { _, state, _ in state.count += 1 }
                    .to("c", type: "t")
            })
        // Behind a state, beside an output, of a second reading, in a processor, of several values.
        #expect(
            needs { builder in
                builder.stream("left", Reading.self).keyedByEvent().table().changes()
                    .filter { record throws(Bad) -> Bool in
                        try Self.refuse(record.value)
                        return true
                    }.to("a", type: "t")
            })
        #expect(
            needs { builder in
                builder.stream("left", Reading.self).to("a", type: "t")
                builder.stream("left", Reading.self).to("b", type: "t")
            })
        #expect(
            !needs { builder in
                builder.stream("left", Reading.self).to("a", type: "t")
                builder.stream("right", Reading.self).to("b", type: "t")
            })
        #expect(
            needs { builder in
                _ = builder.stream("left", Reading.self).keyedByEvent()
                    .process("p", state: Silence(), emits: Int64.self) { record, _, _ in try Self.refuse(record.value) }
            })
        #expect(
            needs { builder in
                builder.stream("left", Reading.self).flatMap { [$0.value, $0.value] }
                    .filter { record throws(Bad) -> Bool in
                        try Self.refuse(record.value)
                        return true
                    }.to("a", type: "t")
            })
    }
}
