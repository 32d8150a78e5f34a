import Base
import EventLog
import Foundation
import Testing

@Suite struct FileDecoderTests {
    /// Real files of a log, one for each decoder.
    static func samples() throws -> [(FileDecoder, [UInt8])] {
        let scratch = try ScratchDirectory()
        let log = try EmbeddedLogTests.open(scratch.path, segmentSize: 20_000)
        for group in 0..<40 {
            _ = try log.append(
                LogAppend(
                    principal: "p", events: (0..<20).map { ("b", nil, EmbeddedLogTests.event("e\(group)-\($0)")) }))
        }
        try log.pin(Pin(name: "x", ranges: [TopicPartition("b", 0): 0..<5]))
        try log.maintain()
        log.close()
        func bytes(_ name: String) -> [UInt8] {
            [UInt8](FileManager.default.contents(atPath: scratch.path + "/" + name) ?? Data())
        }
        let names = try FileManager.default.subpathsOfDirectory(atPath: scratch.path).sorted()
        func last(_ suffix: String, _ inside: Bool) throws -> [UInt8] {
            bytes(try #require(names.last { $0.hasSuffix(suffix) && $0.contains("/") == inside }))
        }
        return [
            (.batch, try last(".log", true)), (.frame, try last(".wal", false)), (.frame, LogFormatTests.example()),
            (.segmentIndex, try last(".index", false)), (.partitionIndex, try last(".index", true)),
            (.identifiers, try last(".ids", false)), (.manifest, bytes("manifest")), (.mark, bytes("durable.mark")),
            (.scanner, LogFormatTests.example()), (.scanner, LogFormatTests.example() + LogFormatTests.example()),
            (.chain, try last(".chain", false)),
        ]
    }

    /// Bytes changed, cut and sealed again: every answer is an answer. Fuzz/run does the same for as long as one likes.
    @Test func damagedFilesNeverCrash() throws {
        var random = SeededRandom(seed: 99)
        for (decoder, good) in try Self.samples() where !good.isEmpty {
            #expect(decoder.accepts(good), "\(decoder)")
            if let corpus = ProcessInfo.processInfo.environment["HEADRACE_FUZZ_CORPUS"] {
                // Where Fuzz/run begins: whole files, with the byte that chooses their decoder, as they are and resealed.
                for flag in [UInt8(0), 0x80] {
                    let seed = [decoder.rawValue | flag] + good.prefix(60_000)
                    try Data(seed).write(to: URL(filePath: "\(corpus)/seed-\(Digest.of(seed).hex.prefix(16))"))
                }
            }
            var refused = 0
            for round in 0..<1500 {
                var bytes = good
                for _ in 0..<Int.random(in: 1...6, using: &random) {
                    bytes[Int.random(in: 0..<min(bytes.count, 400), using: &random)] = UInt8.random(
                        in: 0...255, using: &random)
                }
                if round % 3 == 0 { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random)) }
                if !decoder.accepts(round % 2 == 0 ? bytes : decoder.resealed(bytes)) { refused += 1 }
            }
            #expect(refused > 500, "\(decoder)")
        }
    }
}
