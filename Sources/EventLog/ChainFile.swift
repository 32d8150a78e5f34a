import Base
import RecordFormat

/// The envelopes of a rewritten WAL segment, one behind the other: all that the hash chain and the global order need,
/// while the batches stand in partition files.
enum ChainFile {
    static let magic: UInt32 = 0x3143_5248  // "HRC1"

    struct Envelope {
        let description: LogFrame.Description
        let hash: Digest
    }

    /// Begins a file; envelopes are appended, and `sealFromEight` ends it.
    static func begin(firstSequence: UInt64) -> ByteWriter {
        var out = ByteWriter(capacity: 1 << 16)
        out.append(little: magic)
        out.append(little: UInt32(0))
        out.append(little: firstSequence)
        return out
    }

    static func decode(_ bytes: [UInt8]) throws -> (firstSequence: UInt64, envelopes: [Envelope]) {
        try bytes.withUnsafeBytes { raw in
            var reader = try ByteReader(sealed: raw, magic: magic)
            let first = try reader.little(UInt64.self)
            var result: [Envelope] = []
            while reader.remaining > 0 {
                let rest = UnsafeRawBufferPointer(rebasing: raw[reader.offset...])
                let description = try LogFrame.decodeEnvelope(rest)
                let envelope = try reader.slice(description.envelopeSize)
                result.append(Envelope(description: description, hash: Digest.of(envelope)))
            }
            return (first, result)
        }
    }

    /// Reads and checks a whole file. Memory: the file, and some hundred bytes an append.
    static func load(_ volume: any LogVolume, _ chain: Manifest.Chain) throws(EventLogError) -> [Envelope] {
        let file = try volume.open(chain.path, .read)
        do {
            let bytes = try file.read(at: 0, count: Int(file.size))
            let (first, envelopes) = try decode(bytes)
            guard first == chain.firstSequence else {
                throw BaseError("bad-chain", "it belongs to another segment", fault: .world)
            }
            return envelopes
        } catch let error as EventLogError where error.code == "read-failed" {
            // Another time the disk may give it.
            throw error
        } catch {
            throw EventLogError(
                "rot",
                "the chain file \(volume.path)/\(chain.path) is damaged; its events can be read, their order and hashes cannot be proven",
                cause: error, fault: .world)
        }
    }
}

/// Reads partition files in order for work that goes through many ranges one after another: a decoded batch is kept
/// until the next one is needed.
struct PartitionReader {
    let cache: FileCache
    private var files: [TopicPartition: (start: Int64, files: [PartitionFile])] = [:]
    private var current: [TopicPartition: RecordBatch] = [:]
    /// What could not be read.
    private(set) var damaged: [(partition: TopicPartition, path: String, entry: BatchEntry)] = []
    /// Some of it because the disk gave no bytes, which may be otherwise another time.
    private(set) var metUnreadable = false

    init(cache: FileCache, manifest: Manifest) {
        self.cache = cache
        for partition in manifest.partitions {
            files[partition.partition] = (
                partition.start, partition.files.map { PartitionFile(partition.partition, $0, cache) }
            )
        }
    }

    /// The file that holds an offset.
    func file(_ partition: TopicPartition, _ offset: Int64) -> PartitionFile? {
        guard let known = files[partition]?.files else { return nil }
        let number = PartitionTable.index(in: known, endingAfter: offset)
        return number < known.count && known[number].record.range.contains(offset) ? known[number] : nil
    }

    func isTrimmed(_ partition: TopicPartition, _ range: Range<Int64>) -> Bool {
        guard let known = files[partition] else { return true }
        return range.upperBound <= known.start
            || (known.files.first.map { range.upperBound <= $0.record.baseOffset } ?? true)
    }

    /// The stored batches that hold records of a range; without those that are trimmed or damaged.
    mutating func batches(_ partition: TopicPartition, _ range: Range<Int64>) throws(EventLogError) -> [RecordBatch] {
        var result: [RecordBatch] = []
        guard let known = files[partition] else { return result }
        var number = PartitionTable.index(in: known.files, endingAfter: range.lowerBound)
        while number < known.files.count, known.files[number].record.baseOffset < range.upperBound {
            let file = known.files[number]
            number += 1
            guard let entries = try readable(file) else { continue }
            for entry in entries[entries.firstIndex(endingAfter: range.lowerBound)...] {
                guard entry.baseOffset < range.upperBound else { break }
                if let batch = current[partition], batch.header.baseOffset == entry.baseOffset {
                    result.append(batch)
                } else if let batch = try read(entry, file) {
                    current[partition] = batch
                    result.append(batch)
                }
            }
        }
        return result
    }

    /// The batches of a file; nil when it is gone.
    private mutating func readable(_ file: PartitionFile) throws(EventLogError) -> [BatchEntry]? {
        do {
            _ = try file.file()
            return try file.entries()
        } catch {
            guard ["no-such-file", "read-failed"].contains(error.code) else { throw error }
            if error.code == "read-failed" { metUnreadable = true }
            let whole = BatchEntry(
                baseOffset: file.record.baseOffset, end: file.record.end, maxTime: file.record.maxTime, fileOffset: 0,
                size: Int32(clamping: file.record.bytes), count: Int32(clamping: file.record.records))
            note(whole, file)
            return nil
        }
    }

    private mutating func note(_ entry: BatchEntry, _ file: PartitionFile) {
        guard !damaged.contains(where: { $0.partition == file.partition && $0.entry == entry }) else { return }
        damaged.append((file.partition, file.path, entry))
    }

    private mutating func read(_ entry: BatchEntry, _ file: PartitionFile) throws(EventLogError) -> RecordBatch? {
        let bytes: [UInt8]
        do {
            bytes = try file.file().read(at: entry.fileOffset, count: Int(entry.size))
        } catch {
            guard error.code == "read-failed" else { throw error }
            metUnreadable = true
            note(entry, file)
            return nil
        }
        if let batch = try? bytes.withRaw({ raw throws(RecordFormatError) in try RecordBatch(raw) }),
            batch.header.baseOffset == entry.baseOffset, batch.records.count == Int(entry.count),
            batch.header.leaderEpoch == -1
        {
            return batch
        }
        note(entry, file)
        return nil
    }
}
