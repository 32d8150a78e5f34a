import Base
import BenchmarkBodies
import EventLog
import Foundation
import Testing

@Suite struct BenchmarkBodiesTests {
    /// What the benchmarks measure, small: every event arrives, and the scan finds all of them.
    @Test func theBodiesDoWhatTheyMeasure() async throws {
        let scratch = try ScratchDirectory()
        let log = try EmbeddedLog.open(scratch.path)
        let payloads = (0..<200).map { [UInt8]("{\"id\": \"AA\($0)-JFK\", \"carrier\": \"AA\", \"n\": \($0)}".utf8) }
        let plain = try LogBodies.appendPlain(log, payloads: payloads, events: 20_000)
        let scan = try LogBodies.scan(log, LogBodies.topic)
        #expect(plain.perSecond > 0 && scan.events >= 20_000)
        #expect(try log.offsets(LogBodies.topic).count == scan.events)
        _ = try LogBodies.appendEvents(log, payloads: payloads, events: 3500)
        #expect(try log.offsets(TopicPartition("flights.events", 0)).count == 3500)
        let small = try await LogBodies.manySmall(log, payloads: payloads, producers: 8, each: 20)
        #expect(try log.offsets(TopicPartition("flights.single", 0)).count == 160)
        #expect(small.p50 > 0 && small.p99 >= small.p50)
        #expect(try log.verify().isIntact)
        log.close()
        let delays = payloads.enumerated().map { Array($1.dropLast()) + [UInt8](",\"dep_delay\":\($0)}".utf8) }
        let (picked, parsed) = (
            try StreamBodies.project(delays, rounds: 2), try StreamBodies.parse(delays, rounds: 2)
        )
        #expect(picked.checked == parsed.checked && picked.checked == 2 * (199 * 100 + 400), "\(picked)")
    }

    /// The same of folds: an answer for every event, and a checkpoint that the next fold begins with.
    @Test func theFoldsDoWhatTheyMeasure() throws {
        let scratch = try ScratchDirectory()
        let payloads = (0..<50).map { number in
            [UInt8](
                """
                {"id":"f\(number)","time":"\(Instant(milliseconds: Int64(number) * 60_000))","carrier":"C\(number % 3)",\
                "origin":"JFK","dep_delay":\(number)}
                """.utf8)
        }
        let carriers = try EmbeddedLog.open(scratch.path + "/carriers")
        try FoldBodies.fill(carriers, payloads: payloads, events: 600, partitions: 2)
        let fold = try FoldBodies.fold(carriers, stateDirectory: scratch.path + "/fold")
        #expect(fold.answers == 600 && fold.worst == 49)
        carriers.close()
        let quick = try EmbeddedLog.open(scratch.path + "/quick")
        let latency = try LatencyBodies.endToEnd(
            quick, payloads: payloads, stateDirectory: scratch.path + "/latency", perSecond: 5000, seconds: 0.2)
        #expect(latency.events == 1000 && latency.p50 > 0 && latency.worst >= latency.p99)
        quick.close()
        let many = try EmbeddedLog.open(scratch.path + "/many")
        try FoldBodies.fill(many, payloads: payloads, events: 600, partitions: 2, distinctKeys: 300)
        let typed = try FoldBodies.foldTyped(
            many, stateDirectory: scratch.path + "/typed", output: "keyed.daily", StateBodies.keyedDays)
        #expect(typed.answers == 600)
        many.close()
        let one = try EmbeddedLog.open(scratch.path + "/one")
        try FoldBodies.fill(one, payloads: payloads, events: 2000, partitions: 1, distinctKeys: 300)
        let small = try StateBodies.foldWithin(one, stateDirectory: scratch.path + "/small", memory: 0)
        #expect(small.folded == 2000 && small.stored > 0 && small.resident > 0)
        let state = try StateBodies.checkpoint(one, stateDirectory: scratch.path + "/state", keys: 300)
        #expect(state.folded >= 300 && state.resumed == state.folded && state.seconds >= state.stall)
        one.close()
    }
}
