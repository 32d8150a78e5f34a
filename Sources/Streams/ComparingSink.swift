import Base
import EventLog
import RecordFormat

/// The sink of a replay: nothing is written; every event that the fold emits again is compared with what the log holds at
/// the same position, and the first difference of each topic is kept.
package final class ComparingSink: DerivedSink {
    package struct Divergence: Sendable {
        package let position: String
        package let time: Instant
        package let id: String
        package let reason: String
    }

    private let log: any EventLog
    private let visit: (DerivedEvent) throws -> Void
    private let ends: [String: Int64]?
    private var readers: [String: Reader] = [:]
    package private(set) var compared: Int64 = 0
    package private(set) var first: Divergence?

    private struct Reader {
        var batches: [RecordBatch] = []
        var batch = 0
        var index = 0
        var next: Int64 = 0
    }

    /// - Parameters:
    ///   - ends: where the comparison of each topic ends; nil compares everything.
    ///   - visit: sees every event the replay emits.
    package init(log: any EventLog, ends: [String: Int64]? = nil, visit: @escaping (DerivedEvent) throws -> Void) {
        self.log = log
        self.ends = ends
        self.visit = visit
    }

    package func take(_ event: DerivedEvent) throws {
        // What failed once is recorded for people; its text may change between versions.
        if event.topic != TopologyRunner.deadLetterTopic, event.topic != TopologyRunner.lateTopic { try compare(event) }
        try visit(event)
    }

    private func compare(_ event: DerivedEvent) throws {
        if let end = ends?[event.topic], event.offset >= end { return }
        compared += 1
        guard let logged = try stored(event.topic, event.offset) else {
            diverge(event, "the log ends before it")
            return
        }
        if logged.id != event.event.id {
            diverge(event, "the log holds '\(logged.id)' there")
        } else if logged.time != event.event.time {
            diverge(event, "the log dates it \(logged.time)")
        } else if logged.withData({ raw in event.event.data.map { raw.elementsEqual($0) } ?? false }) != true {
            diverge(event, "its data is another")
        }
    }

    private func diverge(_ event: DerivedEvent, _ reason: String) {
        guard first == nil else { return }
        first = Divergence(
            position: "\(event.topic)/0@\(event.offset)", time: event.event.time, id: event.event.id, reason: reason)
    }

    private func stored(_ topic: String, _ offset: Int64) throws -> StoredEvent? {
        var reader = readers[topic] ?? Reader()
        defer { readers[topic] = reader }
        while true {
            while reader.batch < reader.batches.count {
                let batch = reader.batches[reader.batch]
                while reader.index < batch.records.count {
                    let found = batch.records[reader.index].offset
                    if found == offset { return StoredEvent(batch: batch, index: reader.index) }
                    if found > offset { return nil }
                    reader.index += 1
                }
                reader.batch += 1
                reader.index = 0
            }
            reader.batches = try log.read(TopicPartition(topic, 0), from: max(reader.next, offset), maxBytes: 512 << 10)
            reader.batch = 0
            reader.index = 0
            guard let last = reader.batches.last else { return nil }
            reader.next = last.header.lastOffset + 1
        }
    }

    package func sliceEnded() throws {}
    package func flush() throws {}
}
