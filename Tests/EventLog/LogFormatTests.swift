import Base
import EventLog
import Foundation
import RecordFormat
import Testing

@Suite struct LogFormatTests {
    /// The frame of the worked example in docs/formats/log.md.
    static func example() -> [UInt8] {
        var builder = RecordBatchBuilder()
        [UInt8]("k".utf8).withUnsafeBytes { key in
            [UInt8]("v".utf8).withUnsafeBytes { builder.append(key: key, value: $0, time: 5) }
        }
        var frame = LogFrame.encode(
            firstSequence: 0, principal: "p", keyID: "",
            batches: [
                LogFrame.NewBatch(
                    partition: TopicPartition("t", 0), baseOffset: 0, batch: builder.finish(), isDeduplicated: false)
            ], interleave: [(0, 1)])
        _ = LogFrame.seal(&frame, previousHash: .zero, recordedTime: 1, durableThrough: 0)
        return frame
    }

    @Test func theWorkedExampleIsTrue() throws {
        let text = try String(contentsOfFile: projectDirectory + "/docs/formats/log.md", encoding: .utf8)
        let block = try #require(text.components(separatedBy: "```hex\n").last?.components(separatedBy: "```").first)
        let digits = block.filter { $0.isHexDigit }
        let bytes = try #require([UInt8](hex: digits))
        #expect(bytes == Self.example(), "\(Self.example().hex)")
        #expect(text.contains("\(bytes.count) bytes; a test reads them from here"))
        let frame = try bytes.withUnsafeBytes { try LogFrame.decode($0) }
        #expect(frame.principal == "p" && frame.recordedTime == 1 && frame.eventCount == 1)
        let place = try #require(frame.batches.first)
        let batch = try Array(bytes[place.start..<place.start + place.size]).withUnsafeBytes { try RecordBatch($0) }
        let event = StoredEvent(batch: batch, index: 0)
        #expect(event.key == [0x6B] && event.data == [0x76] && event.time.milliseconds == 5)
        #expect(place.isTimed && RecordBatchLayout.digest(5, batch.payload) == place.digest)
    }
}
