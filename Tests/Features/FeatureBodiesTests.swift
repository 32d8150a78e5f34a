import Base
import BenchmarkBodies
import EventLog
import Testing

@Suite struct FeatureBodiesTests {
    /// What the benchmarks of features measure, small: every row finds what it must.
    @Test func theBodiesDoWhatTheyMeasure() throws {
        let scratch = try ScratchDirectory()
        let payloads = (0..<50).map { number in
            [UInt8](
                """
                {"id":"f\(number)","time":"\(Instant(milliseconds: Int64(number) * 60_000))","carrier":"C\(number % 3)",\
                "origin":"JFK","dep_delay":\(number)}
                """.utf8)
        }
        let latest = try FeatureBodies.join(payloads, features: ["latest:delay"])
        #expect(latest.rows == 50 && latest.found == 1225, "a row finds the event of a moment before")
        let counts = try FeatureBodies.join(payloads, features: ["origin_departures:n_1h"])
        #expect(counts.found == 1275, "one more at every row")
        let log = try EmbeddedLog.open(scratch.path + "/log")
        defer { log.close() }
        try FoldBodies.fill(log, payloads: payloads, events: 600, partitions: 1)
        #expect(try FeatureBodies.backfill(log).events == 600)
        #expect(try FeatureBodies.read(payloads, reads: 100, log: log).found == 100)
        let chunks = FeatureBodies.chunk([UInt8](repeating: 3, count: 1 << 20))
        #expect(chunks.chunks == 8 && chunks.perSecond > 0)
        #expect(try FeatureBodies.newVersion(scratch.path + "/chunks", rows: 20_000, changed: 10) < 0.5)
    }
}
