import Base
import RecordFormat

/// What every idempotent producer wrote last, per partition: Kafka's rules (ProducerStateManager, ProducerAppendInfo).
/// Pure: it decides and remembers, nothing else.
package struct ProducerTable: Sendable {
    /// Batches of which an exact repetition is recognised; so many a producer may have under way.
    package static let remembered = 5
    /// Producers and partitions known at a time; beyond it the ones that have been silent for longest are forgotten.
    package static let limit = 100_000
    /// A producer that was silent for so long (in milliseconds of recorded time) is forgotten.
    package static let expiry: Int64 = 7 * 24 * 3600 * 1000

    struct Key: Hashable, Comparable {
        let producer: Int64
        let partition: TopicPartition

        static func < (left: Key, right: Key) -> Bool {
            (left.producer, left.partition) < (right.producer, right.partition)
        }
    }

    struct Batch: Equatable {
        let first: Int32
        let last: Int32
        let offset: Int64
    }

    struct Entry: Equatable {
        var epoch: Int16
        /// Oldest first.
        var batches: [Batch]
        var recordedTime: Int64
    }

    private(set) var entries: [Key: Entry] = [:]

    package init() {}

    package enum Verdict: Equatable {
        case accepted
        /// Sent before; it stands there.
        case duplicate(offset: Int64)
    }

    /// The sequence number `count` behind another; they wrap from Int32.max to 0.
    static func advance(_ sequence: Int32, by count: Int) -> Int32 {
        Int32((Int64(sequence) + Int64(count)) % (Int64(Int32.max) + 1))
    }

    /// Whether a batch may be written.
    func check(
        _ stamp: ProducerStamp, count: Int, partition: TopicPartition
    ) throws(EventLogError) -> Verdict {
        guard stamp.sequence >= 0, stamp.epoch >= 0 else {
            throw EventLogError(
                "bad-producer",
                "a producer's epoch and sequence number are not negative: \(stamp.epoch), \(stamp.sequence)")
        }
        guard let entry = entries[Key(producer: stamp.id, partition: partition)] else { return .accepted }
        guard stamp.epoch >= entry.epoch else {
            throw EventLogError(
                "producer-fenced",
                "producer \(stamp.id) writes to \(partition) with epoch \(stamp.epoch), but epoch \(entry.epoch) has begun; stop, another one took over"
            )
        }
        let expected: Int32
        if stamp.epoch > entry.epoch {
            expected = 0
        } else {
            let last = ProducerTable.advance(stamp.sequence, by: count - 1)
            if let known = entry.batches.last(where: { $0.first == stamp.sequence && $0.last == last }) {
                return .duplicate(offset: known.offset)
            }
            expected = entry.batches.last.map { ProducerTable.advance($0.last, by: 1) } ?? 0
        }
        guard stamp.sequence == expected else {
            throw EventLogError(
                "out-of-order-sequence",
                "producer \(stamp.id) sent sequence \(stamp.sequence) to \(partition), where \(expected) comes next: a batch before it is missing"
            )
        }
        return .accepted
    }

    /// Takes an accepted batch in. The same for live appends, recovery and rewriting.
    mutating func note(
        _ stamp: ProducerStamp, count: Int, partition: TopicPartition, offset: Int64, recordedTime: Int64
    ) {
        guard !stamp.isNone else { return }
        let key = Key(producer: stamp.id, partition: partition)
        var entry = entries[key] ?? Entry(epoch: stamp.epoch, batches: [], recordedTime: recordedTime)
        if entry.epoch != stamp.epoch {
            entry.epoch = stamp.epoch
            entry.batches = []
        }
        entry.batches.append(
            Batch(first: stamp.sequence, last: ProducerTable.advance(stamp.sequence, by: count - 1), offset: offset))
        if entry.batches.count > ProducerTable.remembered { entry.batches.removeFirst() }
        entry.recordedTime = max(entry.recordedTime, recordedTime)
        entries[key] = entry
    }

    /// Forgets producers that were silent for long.
    mutating func expire(now: Int64) {
        entries = entries.filter { now - $0.value.recordedTime <= ProducerTable.expiry }
        guard entries.count > ProducerTable.limit else { return }
        let order = entries.sorted { ($0.value.recordedTime, $0.key) < ($1.value.recordedTime, $1.key) }
        for (key, _) in order.prefix(entries.count - ProducerTable.limit) { entries[key] = nil }
    }

    func encode(into out: inout ByteWriter) {
        out.append(little: UInt32(entries.count))
        for (key, entry) in entries.sorted(by: { $0.key < $1.key }) {
            out.append(little: key.producer)
            out.append(sized: key.partition.topic)
            out.append(little: UInt32(key.partition.partition))
            out.append(little: entry.epoch)
            out.append(little: entry.recordedTime)
            out.append(UInt8(entry.batches.count))
            for batch in entry.batches {
                out.append(little: batch.first)
                out.append(little: batch.last)
                out.append(little: batch.offset)
            }
        }
    }

    init(_ reader: inout ByteReader) throws(BaseError) {
        for _ in 0..<(try reader.little(UInt32.self)) {
            let producer: Int64 = try reader.little()
            let topic = try reader.sizedText()
            let partition = TopicPartition(topic, Int(try reader.little(UInt32.self)))
            let epoch: Int16 = try reader.little()
            let time: Int64 = try reader.little()
            var batches: [Batch] = []
            for _ in 0..<(try reader.byte()) {
                let first: Int32 = try reader.little()
                let last: Int32 = try reader.little()
                batches.append(Batch(first: first, last: last, offset: try reader.little()))
            }
            entries[Key(producer: producer, partition: partition)] = Entry(
                epoch: epoch, batches: batches, recordedTime: time)
        }
    }
}
