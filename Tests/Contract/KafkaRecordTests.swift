import Base
import Foundation
import RecordFormat
import Testing

@Suite struct KafkaRecordTests {
    /// What we write is what a Kafka client reads: kafka-python decodes our batches, LZ4 and headers included.
    @Test(.enabled(if: python != nil, "./test makes the Python environment"), arguments: 0..<4)
    func clientsReadOurBatches(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed) &+ 40)
        var events: [NewEvent] = []
        for number in 0..<[1, 3, 80, 400][seed] {
            let time = Instant(milliseconds: 1_357_000_000_000 + Int64.random(in: -5000...5000, using: &random))
            let key: [UInt8]? = number % 3 == 0 ? nil : [UInt8]("k\(number)".utf8)
            let data: [UInt8]? = number % 7 == 0 ? nil : [UInt8]("{\"ü\":\(number)}".utf8)
            let causation: String? = number % 2 == 0 ? "c" : nil
            events.append(
                NewEvent(
                    id: "e\(number)", source: "s", type: "t", time: time, key: key, data: data, causation: causation))
        }
        var builder = RecordBatchBuilder()
        for event in events { builder.append(event) }
        var bytes = builder.finish().bytes
        RecordBatchLayout.stamp(&bytes, baseOffset: 77)
        let scratch = try ScratchDirectory()
        try Data(bytes).write(to: URL(filePath: scratch.path + "/batch"))
        let result = try run(
            python!, [projectDirectory + "/Tests/Contract/Python/read_batch.py", scratch.path + "/batch"])
        var lines: [JSON] = []
        for line in result.output.split(separator: "\n") { lines.append(try JSON(parsing: [UInt8](line.utf8))) }
        try #require(lines.count == events.count, "\(result.errors)")
        for (number, (line, event)) in zip(lines, events).enumerated() {
            #expect(line["offset"]?.int == Int64(77 + number) && line["timestamp"]?.int == event.time.milliseconds)
            #expect(line["key"]?.string == event.key.map { String(decoding: $0, as: UTF8.self) })
            #expect(line["value"]?.string == event.data.map { String(decoding: $0, as: UTF8.self) })
            let headers: [[JSON]] = (line["headers"]?.array ?? []).compactMap { $0.array }
            #expect(headers.contains([JSON.string("ce_id"), JSON.string(event.id)]))
            #expect(headers.contains([JSON.string("ce_specversion"), JSON.string("1.0")]))
        }
    }
}
