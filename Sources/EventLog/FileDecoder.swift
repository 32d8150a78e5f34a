import Base
import RecordFormat

/// Every decoder of the log's files behind one door, for whoever feeds them bytes that nobody vouches for.
package enum FileDecoder: UInt8, CaseIterable, Sendable {
    case batch
    case frame
    case segmentIndex
    case partitionIndex
    case identifiers
    case manifest
    case mark
    /// A WAL file as it is walked: frames, and what is found behind damage.
    case scanner
    case chain

    /// Whether the bytes are what they should be. Whatever they are, it neither crashes nor takes more memory than a fixed
    /// multiple of them.
    package func accepts(_ bytes: [UInt8]) -> Bool {
        switch self {
        case .batch:
            guard let batch = bytes.withUnsafeBytes({ try? RecordBatch($0) }) else { return false }
            for index in batch.records.indices {
                let event = StoredEvent(batch: batch, index: index)
                _ = (event.key, event.data, event.headers, event.digest)
            }
            return true
        case .frame: return bytes.withUnsafeBytes { (try? LogFrame.decode($0)) != nil }
        case .segmentIndex: return SegmentIndexFile(bytes) != nil
        case .partitionIndex: return PartitionFile.decodeIndex(bytes) != nil
        case .identifiers:
            guard let file = IdentifierFile(.bytes(bytes)) else { return false }
            _ = file.find((1, 2))
            return file.entries() != nil
        case .manifest: return Manifest(bytes) != nil
        case .mark: return DurableMark(bytes) != nil
        case .scanner: return FileDecoder.scans(bytes)
        case .chain: return (try? ChainFile.decode(bytes)) != nil
        }
    }

    /// True for whole frames from the first byte to the last.
    private static func scans(_ bytes: [UInt8]) -> Bool {
        let file = FileInMemory(bytes)
        var walker = FrameWalker(file: file, offset: 0, end: file.size)
        var isWhole = true
        do {
            while let step = try walker.next() {
                guard case .damage(let from, let resume) = step else { continue }
                isWhole = false
                _ = try walker.salvage(at: from)
                walker.offset = resume?.at ?? walker.end
            }
        } catch {
            return false
        }
        return isWhole
    }

    /// The bytes with their checksums made good, so that damage reaches what lies behind them.
    package func resealed(_ bytes: [UInt8]) -> [UInt8] {
        var out = ByteWriter()
        out.append(bytes)
        switch self {
        case .batch:
            if bytes.count >= RecordBatchLayout.headerSize { RecordBatchLayout.seal(&out.bytes) }
        case .frame, .scanner: LogFrame.reseal(&out.bytes)
        case .segmentIndex, .partitionIndex, .manifest, .mark, .chain:
            if bytes.count >= 8 { out.sealFromEight() }
        case .identifiers: break
        }
        return out.bytes
    }
}

/// Bytes that are read as a file is.
private final class FileInMemory: LogFile {
    let path = "memory"
    private let bytes: [UInt8]
    var size: Int64 { Int64(bytes.count) }

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func read(at offset: Int64, count: Int) throws(EventLogError) -> [UInt8] {
        let start = min(max(0, Int(offset)), bytes.count)
        return Array(bytes[start..<min(start + max(0, count), bytes.count)])
    }

    private func refused() -> EventLogError { EventLogError("read-only", "bytes in memory are only read") }
    func write(_ bytes: [UInt8], at offset: Int64) throws(EventLogError) { throw refused() }
    func sync() throws(EventLogError) { throw refused() }
    func truncate(to size: Int64) throws(EventLogError) { throw refused() }
    func reserve(_ range: Range<Int64>) -> Bool { false }
}
