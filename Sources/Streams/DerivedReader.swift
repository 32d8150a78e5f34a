import Base
import EventLog
import RecordFormat

/// Where derived events will stand, on a log that puts markers of its own between them. Where there is none, each stands
/// one behind the one before it.
package protocol DerivedPlaces: AnyObject {
    /// The offset that the topic's next event has, or will have, at or after `next`.
    func place(_ topic: String, from next: Int64) throws -> Int64
}

/// Reads derived topics forward, for those who need what the log holds where a fold emits it again.
final class DerivedReader {
    private let log: any EventLog
    /// The same of every topic.
    private let partition: Int
    private var places: [String: Place] = [:]

    private struct Place {
        var batches: [RecordBatch] = []
        var batch = 0
        var index = 0
        var next: Int64 = 0
    }

    static let fetchBytes = 512 << 10
    /// Found when their places were asked for, by topic: taken when the events themselves come, in the same order.
    private var found: [String: [StoredEvent]] = [:]

    init(log: any EventLog, partition: Int) {
        self.log = log
        self.partition = partition
    }

    /// As `event`, keeping what is found until `taken` asks for it.
    func place(_ topic: String, atOrAfter offset: Int64) throws -> StoredEvent? {
        guard let event = try event(topic, atOrAfter: offset) else { return nil }
        found[topic, default: []].append(event)
        return event
    }

    /// What `place` found at that offset.
    func taken(_ topic: String, _ offset: Int64) -> StoredEvent? {
        guard var list = found[topic], let first = list.first, first.offset <= offset else { return nil }
        let count = list.firstIndex { $0.offset > offset } ?? list.count
        let event = list[count - 1]
        list.removeFirst(count)
        found[topic] = list
        return event.offset == offset ? event : nil
    }

    /// The topic's first event at or after an offset; nil when the log ends before. Asked with offsets that never fall.
    func event(_ topic: String, atOrAfter offset: Int64) throws -> StoredEvent? {
        var place = places[topic] ?? Place()
        defer { places[topic] = place }
        let partition = TopicPartition(topic, partition)
        var attempts = 0
        while true {
            while place.batch < place.batches.count {
                let batch = place.batches[place.batch]
                while place.index < batch.records.count {
                    if batch.records[place.index].offset >= offset {
                        return StoredEvent(batch: batch, index: place.index)
                    }
                    place.index += 1
                }
                place.batch += 1
                place.index = 0
            }
            let start = try log.offsets(partition).lowerBound
            let from = max(place.next, offset, start)
            place.batches = try log.read(partition, from: from, maxBytes: DerivedReader.fetchBytes)
            place.batch = 0
            place.index = 0
            guard let last = place.batches.last else {
                if log.isReadable(partition, from: from) { return nil }
                // To take it for nothing would write it a second time.
                attempts += 1
                guard attempts < LogReading.attempts else { throw LogReading.notYet(partition, from) }
                continue
            }
            place.next = last.header.lastOffset + 1
        }
    }
}
