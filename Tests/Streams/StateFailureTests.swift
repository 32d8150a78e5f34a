import Base
import EventLog
import Foundation
import GRDB
import RecordFormat
import Simulation
import Streams
import Testing

/// A part of the state that the disk does not give: the fold ends before anything is made of its absence.
@Suite struct StateFailureTests {
    private final class Collector: DerivedSink {
        var topics: [String] = []
        var promises = 0
        var flushes = 0
        func take(_ event: DerivedEvent) { topics.append(event.topic) }
        func say(_ progress: DerivedEvent) { promises += 1 }
        func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) {}
        func flush(_ consumed: () -> [TopicPartition: Int64]) { flushes += 1 }
    }

    /// Hands every event on to another topic.
    private final class Front: Stage {
        let name = "front"
        let inputs = ["in"]
        let outputs = ["mid"]
        let stores: [any AnyStateStore] = []
        func process(_ event: StreamEvent, _ context: StageContext) {
            context.emit(topic: "mid", type: "t", id: event.id, key: event.key, data: event.data, source: name)
        }
    }

    /// Counts each key, says how often it came, and sets a timer for it.
    private final class Counter: Stage {
        let name = "counter"
        let inputs = ["mid"]
        let outputs = ["out"]
        private let counts = StateStore<StateBlob>(name: "counter.counts")
        var stores: [any AnyStateStore] { [counts] }
        func process(_ event: StreamEvent, _ context: StageContext) {
            let count = counts.modify(event.key, default: StateBlob([0])) { blob in
                blob.bytes[0] += 1
                return blob.bytes[0]
            }
            context.setTimer(at: event.time + 1000, key: event.key)
            context.emit(topic: "out", type: "t", id: event.id, data: [UInt8]("\(count)".utf8), source: name)
        }
        func fire(timer key: String, at time: Instant, _ context: StageContext) {
            context.emit(topic: "out", type: "t", id: "\(key)-\(time.milliseconds)", data: [0x30], source: name)
        }
    }

    private let scratch: ScratchDirectory
    private let log: EmbeddedLog

    init() throws {
        scratch = try ScratchDirectory()
        var options = EmbeddedLog.Options()
        options.hasThreads = false
        log = try EmbeddedLog.open(SimulatedVolume(seed: 1), options: options)
        try log.declare(TopicLayout(name: "in", partitions: 1))
    }

    private func append(_ number: Int, key: String, time: Int64) {
        let event = NewEvent(
            id: "\(number)", source: "s", type: "t", time: Instant(milliseconds: time), key: [UInt8](key.utf8),
            data: [UInt8]("{}".utf8))
        log.append(LogAppend(principal: "p", events: [("in", 0, event)])) { _ in }
        log.commitReady()
    }

    private func promise(_ time: Int64) {
        let data = "{\"through\":\"\(Instant(milliseconds: time))\",\"state\":\"active\"}"
        let event = NewEvent(
            id: "p\(time)", source: "s", type: EventType.progress, time: Instant(milliseconds: time),
            data: [UInt8](data.utf8))
        log.append(LogAppend(principal: "p", events: [("in", 0, event)])) { _ in }
        log.commitReady()
    }

    private func runner(_ sink: Collector) throws -> TopologyRunner {
        try TopologyRunner(
            topology: Topology(
                name: "t", stages: [Front(), Counter()], answers: [], attachments: [], saysProgress: true),
            derived: ["mid", "out"], log: log, database: try StateDatabase(path: scratch.path + "/state"), sink: sink)
    }

    /// - Parameter store: of which every chunk is ruined between two lives.
    @Test(arguments: ["counter.counts", "runner.timers", ""]) func missingStateEndsTheFold(store: String) throws {
        for key in 0..<300 { append(key, key: "k\(key)", time: 1) }
        promise(1)
        let first = Collector()
        let before = try runner(first)
        while try before.runSlice() {}
        try before.checkpoint()
        before.end()
        #expect(first.topics.count == 600)
        let file = try DatabaseQueue(path: scratch.path + "/state")
        try file.write { database in
            let runs = try Row.fetchAll(
                database, sql: "SELECT firstChunk, length(starts) / 8 FROM runs WHERE store = ?", arguments: [store])
            for row in runs {
                let (start, count): (Int64, Int64) = (row[0], row[1])
                try database.execute(
                    sql: "UPDATE chunks SET data = zeroblob(length(data)) WHERE id >= ? AND id < ?",
                    arguments: [start, start + count])
            }
        }
        try file.close()
        // A key that is there is asked for, or, where nothing comes at all, its timer is due.
        if store != "runner.timers" { append(300, key: "k7", time: 2) }
        promise(5000)
        let second = Collector()
        let after = try runner(second)
        defer { after.end() }
        guard !store.isEmpty else {
            while try after.runSlice() {}
            #expect(second.topics.count == 2 + 301)
            return
        }
        for _ in 0..<2 {
            let error = #expect(throws: StreamsError.self) { while try after.runSlice() {} }
            #expect(error?.code == "state-load")
            #expect(errorCode { try after.flush() } == "state-load")
            #expect(errorCode { try after.checkpoint() } == "state-load")
        }
        #expect(!second.topics.contains("out") && second.promises == 0 && second.flushes == 0)
    }
}
