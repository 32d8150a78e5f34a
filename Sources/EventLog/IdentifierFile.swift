import Base
import CPlatform
import Synchronization

/// The event ids of one sealed WAL segment: a hash table on disk in buckets of 256 bytes, each with its own checksum,
/// looked up in place so that opening a log costs nothing per event. Derived: rebuilt from the log when it is missing.
package final class IdentifierFile: Sendable {
    static let magic: UInt32 = 0x3244_5248  // "HRD2"
    static let bucketSize = 256
    static let headerSize = 64
    /// Entries of 24 bytes in a bucket, before its count (1), overflow flag (1), reserve (2) and CRC-32C (4).
    static let bucketEntries = 10
    /// Buckets are filled to this many entries on average.
    private static let fill = 6

    /// One event id.
    struct Entry: Sendable {
        let hash: (UInt64, UInt64)
        /// Index into the file's partitions.
        let partition: UInt32
        let offset: Int64
    }

    /// One event id with its partition by name.
    typealias Known = (hash: (UInt64, UInt64), partition: TopicPartition, offset: Int64)

    /// A hash that can stand in a set.
    struct Key: Hashable {
        let high: UInt64
        let low: UInt64

        init(_ hash: (UInt64, UInt64)) { (high, low) = hash }
    }

    enum Answer: Equatable {
        case absent
        case found(TopicPartition, Int64)
        case damaged
    }

    let firstSequence: UInt64
    let endSequence: UInt64
    /// Recorded time of the newest event, milliseconds since 1970.
    let newestRecorded: Int64
    let count: Int
    private let partitions: [TopicPartition]
    let buckets: Int
    private let start: Int
    private let content: Content
    private let suspect = Mutex(false)
    /// It may know less than the file that it stands for, so an id that is not in it is not new.
    private let isPartial: Bool

    /// Where the bytes are. A file is read, never mapped: a sector that cannot be read any more is an error then, and
    /// would be the end of the process otherwise.
    enum Content: Sendable {
        case file(any LogFile, size: Int)
        case bytes([UInt8])

        var size: Int {
            switch self {
            case .file(_, let size): size
            case .bytes(let bytes): bytes.count
            }
        }

        /// Exactly so many bytes; nil where they are not, or cannot be read.
        func read(at offset: Int, count: Int) -> [UInt8]? {
            guard offset >= 0, count >= 0, offset <= size - count else { return nil }
            switch self {
            case .bytes(let bytes): return Array(bytes[offset..<offset + count])
            case .file(let file, _):
                guard let bytes = try? file.read(at: Int64(offset), count: count), bytes.count == count else {
                    return nil
                }
                return bytes
            }
        }
    }

    /// Buckets read at once.
    private static let pageBuckets = 4096

    /// What a file on the disk is worth.
    enum Condition {
        case whole
        /// It is gone, or its bytes are not what they were.
        case damaged
        /// The disk gives no bytes of it now, and may another time.
        case unreadable
    }

    /// Reads all of a file: before one is replaced by another that knows less.
    static func condition(_ volume: any LogVolume, _ path: String) -> Condition {
        do {
            let file = try volume.open(path, .read)
            let bytes = try file.read(at: 0, count: Int(file.size))
            return IdentifierFile(.bytes(bytes))?.entries() == nil ? .damaged : .whole
        } catch {
            // Whatever else keeps it from being opened may be over another time.
            return error.code == "no-such-file" ? .damaged : .unreadable
        }
    }

    /// Opens a file; where there is none to be had, why.
    static func load(_ volume: any LogVolume, _ path: String) -> (file: IdentifierFile?, condition: Condition) {
        for _ in 0..<2 {
            if let file = (try? volume.open(path, .read)).flatMap({ IdentifierFile($0) }) { return (file, .whole) }
            let condition = condition(volume, path)
            // A read that failed for a moment.
            guard condition == .whole else { return (nil, condition) }
        }
        return (nil, .unreadable)
    }

    /// A lookup met damage; the file is to be built again.
    var isSuspect: Bool { suspect.withLock { $0 } }

    /// Has the upkeep look at the file on the disk: this table may know less.
    func makeSuspect() { suspect.withLock { $0 = true } }

    convenience init?(_ file: any LogFile) { self.init(.file(file, size: Int(file.size))) }

    /// What could be made of a file that cannot be read now; the upkeep looks for it again.
    static func partial(_ bytes: [UInt8]) -> IdentifierFile? {
        let file = IdentifierFile(.bytes(bytes), isPartial: true)
        file?.makeSuspect()
        return file
    }

    /// nil when the file is damaged where its header or partitions stand, or does not have the size it states.
    init?(_ content: Content, isPartial: Bool = false) {
        self.isPartial = isPartial
        guard let lead = content.read(at: 0, count: IdentifierFile.headerSize) else { return nil }
        let start = lead.withUnsafeBytes {
            Int(UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: 40, as: UInt32.self)))
        }
        guard start >= IdentifierFile.headerSize, let head = content.read(at: 0, count: start) else { return nil }
        var names: [TopicPartition] = []
        var fields: (UInt64, UInt64, Int64, Int, Int)?
        head.withUnsafeBytes { raw in
            do throws(BaseError) {
                var reader = ByteReader(raw)
                guard try reader.little(UInt32.self) == IdentifierFile.magic else { return }
                let crc = try reader.little(UInt32.self)
                let first: UInt64 = try reader.little()
                let end: UInt64 = try reader.little()
                let newest: Int64 = try reader.little()
                let count = Int(try reader.little(UInt32.self))
                let buckets = Int(try reader.little(UInt32.self))
                guard buckets > 0, start + buckets * IdentifierFile.bucketSize == content.size,
                    headrace_crc32c(0, raw.baseAddress.map { $0 + 8 }, start - 8) == crc
                else { return }
                reader = ByteReader(raw, offset: 44)
                for _ in 0..<(try reader.little(UInt32.self)) {
                    let topic = try reader.sizedText()
                    names.append(TopicPartition(topic, Int(try reader.little(UInt32.self))))
                }
                fields = (first, end, newest, count, buckets)
            } catch {
                return
            }
        }
        guard let fields else { return nil }
        (firstSequence, endSequence, newestRecorded, count, buckets) = fields
        self.start = start
        partitions = names
        self.content = content
    }

    private static func bucket(_ hash: UInt64, _ buckets: Int) -> Int {
        Int(truncatingIfNeeded: hash.multipliedFullWidth(by: UInt64(buckets)).high)
    }

    func find(_ hash: (UInt64, UInt64)) -> Answer {
        var bucket = IdentifierFile.bucket(hash.0, buckets)
        for _ in 0..<buckets {
            var found: Answer?
            var isFull = false
            let whole = page(bucket..<bucket + 1) { _, raw in
                isFull = raw[249] != 0
                for entry in 0..<Int(raw[248])
                where IdentifierFile.word(raw, entry, 0) == hash.0 && IdentifierFile.word(raw, entry, 1) == hash.1 {
                    let place = IdentifierTable.unpack(IdentifierFile.word(raw, entry, 2))
                    guard Int(place.0) < partitions.count else { return found = .damaged }
                    return found = .found(partitions[Int(place.0)], place.1)
                }
            }
            guard whole else { return .damaged }
            if let found { return found }
            if !isFull { return isPartial ? .damaged : .absent }
            bucket = (bucket + 1) % buckets
        }
        return isPartial ? .damaged : .absent
    }

    private static func word(_ raw: UnsafeRawBufferPointer, _ entry: Int, _ index: Int) -> UInt64 {
        UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: entry * 24 + index * 8, as: UInt64.self))
    }

    /// Visits buckets; false when one of them is damaged or cannot be read, which makes the file suspect.
    private func page(_ range: Range<Int>, _ visit: (Int, UnsafeRawBufferPointer) -> Void) -> Bool {
        let size = IdentifierFile.bucketSize
        for first in stride(from: range.lowerBound, to: range.upperBound, by: IdentifierFile.pageBuckets) {
            let count = min(IdentifierFile.pageBuckets, range.upperBound - first)
            let bytes = content.read(at: start + first * size, count: count * size)
            let whole = bytes?.withUnsafeBytes { page in
                for index in 0..<count {
                    let raw = UnsafeRawBufferPointer(rebasing: page[index * size..<(index + 1) * size])
                    let crc = UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: 252, as: UInt32.self))
                    guard headrace_crc32c(0, raw.baseAddress, 252) == crc,
                        Int(raw[248]) <= IdentifierFile.bucketEntries
                    else { return false }
                    visit(first + index, raw)
                }
                return true
            }
            guard whole == true else {
                suspect.withLock { $0 = true }
                return false
            }
        }
        return true
    }

    /// Every entry with its partition; nil when a bucket is damaged.
    func entries() -> [Known]? {
        var result: [Known] = []
        return collect(0..<buckets, &result) ? result : nil
    }

    /// The entries of every bucket that is whole.
    func salvaged() -> [Known] {
        var result: [Known] = []
        guard !collect(0..<buckets, &result) else { return result }
        result = []
        for bucket in 0..<buckets {
            let known = result.count
            if !collect(bucket..<bucket + 1, &result) { result.removeLast(result.count - known) }
        }
        return result
    }

    private func collect(_ range: Range<Int>, _ result: inout [Known]) -> Bool {
        var isLegal = true
        let whole = page(range) { _, raw in
            for entry in 0..<Int(raw[248]) {
                let place = IdentifierTable.unpack(IdentifierFile.word(raw, entry, 2))
                guard Int(place.0) < partitions.count else { return isLegal = false }
                let hash = (IdentifierFile.word(raw, entry, 0), IdentifierFile.word(raw, entry, 1))
                result.append((hash, partitions[Int(place.0)], place.1))
            }
        }
        return whole && isLegal
    }

    /// Hashes of some of its buckets' ids; nil when one of these buckets is damaged.
    func hashes(in range: Range<Int>) -> [(UInt64, UInt64)]? {
        // The filter would take what is missing for new.
        guard !isPartial else { return nil }
        var result: [(UInt64, UInt64)] = []
        result.reserveCapacity(range.count * IdentifierFile.fill)
        let whole = page(range.clamped(to: 0..<buckets)) { _, raw in
            for entry in 0..<Int(raw[248]) {
                result.append((IdentifierFile.word(raw, entry, 0), IdentifierFile.word(raw, entry, 1)))
            }
        }
        return whole ? result : nil
    }

    static func encode(
        firstSequence: UInt64, endSequence: UInt64, newestRecorded: Int64, partitions: [TopicPartition],
        entries: [Entry]
    ) -> [UInt8] {
        let buckets = max(1, (entries.count + fill - 1) / fill)
        var out = ByteWriter()
        out.append(little: magic)
        out.append(little: UInt32(0))
        out.append(little: firstSequence)
        out.append(little: endSequence)
        out.append(little: newestRecorded)
        out.append(little: UInt32(entries.count))
        out.append(little: UInt32(buckets))
        out.append(little: UInt32(0))
        out.append(little: UInt32(partitions.count))
        for partition in partitions {
            out.append(sized: partition.topic)
            out.append(little: UInt32(partition.partition))
        }
        while out.count < headerSize || out.count % 64 != 0 { out.append(UInt8(0)) }
        let start = out.count
        out.patch(little: UInt32(start), at: 40)
        out.patch(
            little: out.bytes.withUnsafeBytes { headrace_crc32c(0, $0.baseAddress.map { $0 + 8 }, start - 8) }, at: 4)
        out.bytes.append(contentsOf: repeatElement(0, count: buckets * bucketSize))
        out.bytes.withUnsafeMutableBytes { raw in
            for entry in entries {
                var bucket = self.bucket(entry.hash.0, buckets)
                while Int(raw[start + bucket * bucketSize + 248]) == bucketEntries {
                    raw[start + bucket * bucketSize + 249] = 1
                    bucket = (bucket + 1) % buckets
                }
                let at = start + bucket * bucketSize
                let slot = at + Int(raw[at + 248]) * 24
                raw.storeBytes(of: entry.hash.0.littleEndian, toByteOffset: slot, as: UInt64.self)
                raw.storeBytes(of: entry.hash.1.littleEndian, toByteOffset: slot + 8, as: UInt64.self)
                raw.storeBytes(
                    of: IdentifierTable.pack(entry.partition, entry.offset).littleEndian, toByteOffset: slot + 16,
                    as: UInt64.self)
                raw[at + 248] += 1
            }
            for bucket in 0..<buckets {
                let at = start + bucket * bucketSize
                let crc = headrace_crc32c(0, raw.baseAddress.map { $0 + at }, 252)
                raw.storeBytes(of: crc.littleEndian, toByteOffset: at + 252, as: UInt32.self)
            }
        }
        return out.bytes
    }
}
