import Base
import CPlatform
import RecordFormat
import Synchronization

/// A file of RecordBatch v2 after RecordBatch v2 of one partition, exactly as in a Kafka segment, and the index beside it
/// (loaded when it is first needed). Immutable: when the file grows another object takes its place.
final class PartitionFile: Sendable {
    static let indexMagic: UInt32 = 0x3158_5248  // "HRX1"

    let partition: TopicPartition
    let record: Manifest.File
    let path: String
    private let cache: FileCache
    private let index: Mutex<[BatchEntry]?>
    private let rebuilt = Mutex<[UInt8]?>(nil)

    init(_ partition: TopicPartition, _ record: Manifest.File, _ cache: FileCache, index: [BatchEntry]? = nil) {
        self.partition = partition
        self.record = record
        self.cache = cache
        self.index = Mutex(index)
        path = record.path(partition)
    }

    static func indexPath(_ path: String) -> String { String(path.dropLast(4)) + ".index" }

    static func encodeIndex(_ entries: [BatchEntry]) -> [UInt8] {
        var out = ByteWriter(capacity: 16 + entries.count * BatchEntry.encodedSize)
        out.append(little: indexMagic)
        out.append(little: UInt32(0))
        out.append(little: UInt32(entries.count))
        for entry in entries { entry.encode(into: &out) }
        out.sealFromEight()
        return out.bytes
    }

    /// The checksum inside an encoded index, by which the manifest knows it.
    static func stamp(_ index: [UInt8]) -> UInt32 {
        index.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: 4, as: UInt32.self)) }
    }

    static func decodeIndex(_ bytes: [UInt8]) -> [BatchEntry]? {
        do {
            return try bytes.withRaw { raw throws(BaseError) in
                var reader = try ByteReader(sealed: raw, magic: indexMagic)
                let count = Int(try reader.little(UInt32.self))
                try reader.require(count * BatchEntry.encodedSize)
                var entries: [BatchEntry] = []
                entries.reserveCapacity(count)
                for _ in 0..<count { entries.append(try BatchEntry(&reader)) }
                return entries
            }
        } catch {
            return nil
        }
    }

    /// The batches in order; rebuilt from the file when the index beside it is missing or belongs to other bytes.
    func entries() throws(EventLogError) -> [BatchEntry] {
        if let known = index.withLock({ $0 }) { return known }
        var entries: [BatchEntry]
        if let bytes = cache.volume.contents(PartitionFile.indexPath(path)), bytes.count >= 8,
            PartitionFile.stamp(bytes) == record.indexStamp, let stored = PartitionFile.decodeIndex(bytes)
        {
            entries = stored
        } else {
            entries = try BatchWalker(file: try file(), end: record.bytes).entries()
            let encoded = PartitionFile.encodeIndex(entries)
            if PartitionFile.stamp(encoded) == record.indexStamp { rebuilt.withLock { $0 = encoded } }
        }
        index.withLock { $0 = entries }
        return entries
    }

    /// Whether the index beside the file is there, whole, and of these bytes.
    var hasIndex: Bool {
        guard let bytes = cache.volume.contents(PartitionFile.indexPath(path)), bytes.count >= 8 else { return false }
        return PartitionFile.stamp(bytes) == record.indexStamp && PartitionFile.decodeIndex(bytes) != nil
    }

    func file() throws(EventLogError) -> any LogFile { try cache.file(path) }

    /// An index that had to be built from the file, for the upkeep to write.
    var rebuiltIndex: [UInt8]? { rebuilt.withLock { $0 } }
    func indexWasWritten() { rebuilt.withLock { $0 = nil } }
}

/// Open files of a volume, the ones used longest ago closed first. Sendable because its table is behind a lock.
final class FileCache: Sendable {
    /// Files open at a time.
    static let limit = 256

    private struct State {
        var files: [String: (file: any LogFile, used: UInt64)] = [:]
        var clock: UInt64 = 0
    }

    let volume: any LogVolume
    private let state = Mutex(State())

    init(_ volume: any LogVolume) { self.volume = volume }

    func file(_ path: String) throws(EventLogError) -> any LogFile {
        let known: (any LogFile)? = state.withLock { state in
            state.clock += 1
            state.files[path]?.used = state.clock
            return state.files[path]?.file
        }
        if let known { return known }
        let file = try volume.open(path, .read)
        state.withLock { state in
            if state.files.count >= FileCache.limit,
                let oldest = state.files.min(by: { $0.value.used < $1.value.used })?.key
            {
                state.files[oldest] = nil
            }
            state.files[path] = (file, state.clock)
        }
        return file
    }

    func forget(_ path: String) { state.withLock { $0.files[path] = nil } }
}

/// Walks the batches of a partition file without an index, over damage as well.
struct BatchWalker {
    let file: any LogFile
    let end: Int64

    func entries() throws(EventLogError) -> [BatchEntry] {
        var entries: [BatchEntry] = []
        var offset: Int64 = 0
        var nextOffset: Int64 = 0
        while offset < end {
            if let (header, whole) = try header(at: offset), header.baseOffset >= nextOffset, whole {
                entries.append(BatchWalker.entry(header, at: offset))
                nextOffset = header.lastOffset + 1
                offset += Int64(header.size)
            } else {
                // Damage: the next place where a batch begins whose checksum holds.
                guard let next = try search(after: offset, from: nextOffset) else { break }
                offset = next
            }
        }
        return entries
    }

    static func entry(_ header: RecordBatchHeader, at offset: Int64) -> BatchEntry {
        BatchEntry(
            baseOffset: header.baseOffset, end: header.lastOffset + 1, maxTime: header.maxTimestamp,
            fileOffset: offset, size: Int32(header.size), count: header.count)
    }

    private func header(at offset: Int64) throws(EventLogError) -> (RecordBatchHeader, whole: Bool)? {
        let head = try file.read(at: offset, count: Int(min(Int64(RecordBatchLayout.headerSize), end - offset)))
        guard head.count == RecordBatchLayout.headerSize else { return nil }
        let size = head.withUnsafeBytes {
            Int(Int32(bigEndian: $0.loadUnaligned(fromByteOffset: RecordBatchLayout.length, as: Int32.self)))
                + RecordBatchLayout.lengthOverhead
        }
        guard size >= RecordBatchLayout.headerSize, size <= LogFrame.maximumSize, offset + Int64(size) <= end else {
            return nil
        }
        let bytes = try file.read(at: offset, count: size)
        return bytes.withUnsafeBytes { raw in
            guard let header = try? RecordBatchHeader(raw) else { return nil }
            return (header, header.matchesCRC(raw))
        }
    }

    private func search(after start: Int64, from nextOffset: Int64) throws(EventLogError) -> Int64? {
        var from = start + 1
        while from + Int64(RecordBatchLayout.headerSize) <= end {
            let bytes = try file.read(at: from, count: Int(min(1 << 20, end - from)))
            guard bytes.count >= RecordBatchLayout.headerSize else { return nil }
            for index in 0...(bytes.count - RecordBatchLayout.headerSize)
            where bytes[index + RecordBatchLayout.magic] == 2 && bytes[index] == 0 {
                if let (header, whole) = try header(at: from + Int64(index)), whole, header.baseOffset >= nextOffset {
                    return from + Int64(index)
                }
            }
            from += Int64(bytes.count - RecordBatchLayout.headerSize + 1)
        }
        return nil
    }
}
