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
}
