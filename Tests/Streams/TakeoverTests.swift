import Base
import EventLog
import Foundation
import RecordFormat
import Simulation
import Streams
import Testing

/// A changed topology takes over from another one: on random topologies and events, at random places.
@Suite struct TakeoverTests {
    /// Random events that come into a log part by part.
    private struct Source {
        let lanes: [[Sample]]
        let log: EmbeddedLog
        private var next = [0, 0, 0, 0]
        private var open = [0, 1, 2, 3]

        init(_ lanes: [[Sample]]) throws {
            self.lanes = lanes
            var options = EmbeddedLog.Options()
            options.hasThreads = false
            log = try EmbeddedLog.open(SimulatedVolume(seed: 1), options: options)
            for topic in ["left", "right"] { try log.declare(TopicLayout(name: topic, partitions: 2)) }
        }

        var isOpen: Bool { !open.isEmpty }

        mutating func write(_ random: inout SeededRandom) {
            guard let lane = open.randomElement(using: &random) else { return }
            let left = lanes[lane].count - next[lane]
            let count = min(Int.random(in: 0...9, using: &random), left)
            let topic = lane < 2 ? "left" : "right"
            func event(_ id: String, _ type: String, _ time: Int64, _ key: String?, _ data: String) {
                let event = NewEvent(
                    id: id, source: "s", type: type, time: Instant(milliseconds: time),
                    key: key.map { [UInt8]($0.utf8) },
                    data: [UInt8](data.utf8))
                log.append(LogAppend(principal: "p", events: [(topic, lane % 2, event)])) { _ in }
            }
            for number in next[lane]..<next[lane] + count {
                let sample = lanes[lane][number]
                event("\(lane)-\(number)", "t", sample.time, sample.key, sample.json)
            }
            next[lane] += count
            let last = next[lane] > 0 ? lanes[lane][next[lane] - 1].time : 0
            func progress(_ through: Int64, _ state: String) {
                let text = Instant(milliseconds: through)
                event(
                    "p\(lane)-\(through)-\(state)", EventType.progress, last, nil,
                    "{\"through\":\"\(text)\",\"state\":\"\(state)\"}")
            }
            if count == left {
                open.removeAll { $0 == lane }
                progress(TypedStreamTests.end, "finished")
            } else if last > 0, Bool.random(using: &random) {
                progress(last - 1, "active")
            }
            log.commitReady()
        }
    }

    private static func runner(
        _ plan: Plan, _ log: EmbeddedLog, _ sink: Collector, path: String? = nil, after takeover: Takeover? = nil
    ) throws -> TopologyRunner {
        let topology = Topology(
            name: "t", stages: [plan.build().build()], answers: [], attachments: [],
            generation: takeover == nil ? 1 : 2, takeovers: takeover.map { [$0] } ?? [])
        return try TopologyRunner(
            topology: topology, derived: ["out"], log: log, database: try StateDatabase(path: path, memory: 0),
            sink: sink)
    }

    /// What the first wrote until it came to rest and what the second writes from there on: of the same topology it is what one
    /// life of it says, of another one the end of what a life of that would have said. Whoever folds again from the beginning,
    /// later and with everything there, says the same.
    @Test(arguments: 0..<10) func nothingIsMissingAndNothingDoubled(part: Int) throws {
        var silent = 0
        for seed in part * 30..<part * 30 + 30 {
            var random = SeededRandom(seed: UInt64(seed))
            let (first, other) = (Plan(&random), Plan(&random))
            let second = seed % 3 == 0 ? first : other
            let scratch = try ScratchDirectory()
            var source = try Source(TypedStreamTests.samples(&random))
            let (before, after) = (Collector(), Collector())

            let old = try Self.runner(first, source.log, before, path: scratch.path + "/old")
            // Stopped between two events, between two timers, or when it had done all there was.
            if Bool.random(using: &random) {
                try old.end(at: .time(Instant(milliseconds: Int64.random(in: 1000...1090, using: &random))))
            }
            for _ in 0..<Int.random(in: 0...24, using: &random) {
                source.write(&random)
                while try old.runSlice() {}
            }
            try old.checkpoint()
            let found = try Takeover(try StateDatabase(path: scratch.path + "/old", isKept: true), of: nil)
            var place = try #require(found)
            #expect(Takeover(place.json) == place)
            // The first did not read one of the topics.
            let isNarrow = seed % 3 == 1
            if isNarrow {
                place = Takeover(
                    now: place.now, fired: place.fired, inputs: place.inputs.filter { $0.key.topic == "left" },
                    emitted: place.emitted)
            }

            // The second goes on in several lives.
            func resumed() throws -> TopologyRunner {
                try Self.runner(second, source.log, after, path: scratch.path + "/new", after: place)
            }
            var new = try resumed()
            while true {
                while try new.runSlice() {}
                if Int.random(in: 0..<3, using: &random) == 0 {
                    try new.checkpoint()
                    new = try resumed()
                }
                guard source.isOpen else { break }
                if new.isSilent { silent += 1 }
                source.write(&random)
            }
            #expect(
                new.isDrained && !new.isSilent && new.late == 0, "seed \(seed): silent \(new.isSilent): \(new.missing)")

            let whole = Collector()
            let alone = try Self.runner(second, source.log, whole)
            while try alone.runSlice() {}
            // Of the instant in which it rested, events of the topic that the first did not read come before those that it left.
            if !isNarrow {
                #expect(
                    whole.lines.suffix(after.lines.count) == after.lines[...], "seed \(seed): \(first), then \(second)")
                #expect(new.stateDigests().map(\.digest) == alone.stateDigests().map(\.digest), "seed \(seed)")
            }
            if seed % 3 == 0 {
                #expect(before.lines + after.lines == whole.lines, "seed \(seed): \(first) at \(place)")
            }
            let again = Collector()
            let later = try Self.runner(second, source.log, again, after: place)
            while try later.runSlice() {}
            #expect(again.lines == after.lines && again.ids == after.ids, "seed \(seed): \(second)")
            source.log.close()
        }
        #expect(silent > 0)
    }
}
