import Base
import CPlatform
import EventLog
import Foundation
import RecordFormat
import Testing

@Suite struct RecordFormatTests {
    @Test func checksumsAgree() {
        // Check value of CRC-32C: "123456789" gives E3069283.
        let check = [UInt8]("123456789".utf8)
        #expect(check.withUnsafeBytes { headrace_crc32c(0, $0.baseAddress, $0.count) } == 0xE306_9283)
        var random = SeededRandom(seed: 1)
        for count in [0, 1, 7, 8, 9, 63, 64, 65, 4097] {
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
            bytes.withUnsafeBytes { raw in
                #expect(
                    headrace_crc32c(5, raw.baseAddress, raw.count)
                        == headrace_crc32c_portable(5, raw.baseAddress, raw.count))
            }
        }
    }

    static func randomEvent(_ random: inout SeededRandom, _ number: Int) -> NewEvent {
        let size = Int.random(in: 0..<400, using: &random)
        let data =
            Int.random(in: 0..<10, using: &random) == 0 ? nil : [UInt8](repeating: UInt8(number % 251), count: size)
        return NewEvent(
            id: "event-\(number)", source: "test", type: "t",
            time: Instant(milliseconds: Int64.random(in: -1000...1_000_000_000_000, using: &random)),
            key: Bool.random(using: &random) ? [UInt8]("key\(number % 7)".utf8) : nil,
            subject: Bool.random(using: &random) ? "s" : nil, data: data,
            causation: Bool.random(using: &random) ? "c\(number)" : nil,
            extensions: Bool.random(using: &random) ? [("ce_extra", "ü")] : [])
    }

    @Test(arguments: 0..<20) func batchesReadBack(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        let events = (0..<Int.random(in: 1...300, using: &random)).map { Self.randomEvent(&random, $0) }
        var builder = RecordBatchBuilder()
        for event in events { builder.append(event) }
        var bytes = builder.finish().bytes
        RecordBatchLayout.stamp(&bytes, baseOffset: 1000)
        let batch = try bytes.withUnsafeBytes { try RecordBatch($0) }
        #expect(batch.records.count == events.count)
        for (index, event) in events.enumerated() {
            let stored = StoredEvent(batch: batch, index: index)
            #expect(stored.offset == 1000 + Int64(index))
            #expect(stored.time == event.time)
            #expect(stored.id == event.id && stored.type == event.type && stored.header("ce_source") == event.source)
            #expect(stored.key == event.key && stored.data == event.data)
            #expect(
                stored.header("ce_causationid") == event.causation
                    && stored.header("ce_extra") == event.extensions.first?.value)
        }
        // Any flipped bit is noticed, or changes only what the CRC does not cover (base offset, leader epoch).
        for _ in 0..<50 {
            var damaged = bytes
            damaged[Int.random(in: RecordBatchLayout.crc..<bytes.count, using: &random)] ^=
                1 << UInt8.random(in: 0..<8, using: &random)
            #expect(errorCode { _ = try damaged.withUnsafeBytes { try RecordBatch($0) } } != nil)
        }
    }

    /// The decoder meets arbitrary bytes without crashing or growing.
    @Test func garbageIsRefused() {
        var random = SeededRandom(seed: 4)
        var builder = RecordBatchBuilder()
        for number in 0..<50 { builder.append(Self.randomEvent(&random, number)) }
        let good = builder.finish().bytes
        for _ in 0..<3000 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random))
            // With a valid CRC the damage reaches the scanner behind it.
            if bytes.count > RecordBatchLayout.headerSize { RecordBatchLayout.seal(&bytes) }
            _ = try? bytes.withUnsafeBytes { try RecordBatch($0) }
        }
    }

    /// murmur2 of Kafka's own tests (UtilsTest.testMurmur2), as partitions of a large count.
    @Test(
        arguments: [
            ("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971), ("abc", 479_470_107),
        ] as [(String, Int32)]) func partitionsAreKafkas(key: String, hash: Int32)
    {
        let positive = Int(hash & 0x7FFF_FFFF)
        #expect(murmur2Partition([UInt8](key.utf8), partitions: 1009) == positive % 1009)
    }
}
