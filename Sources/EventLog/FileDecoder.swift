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
        }
    }

    /// The bytes with their checksums made good, so that damage reaches what lies behind them.
    package func resealed(_ bytes: [UInt8]) -> [UInt8] {
        var out = ByteWriter()
        out.append(bytes)
        switch self {
        case .batch:
            if bytes.count >= RecordBatchLayout.headerSize { RecordBatchLayout.seal(&out.bytes) }
        case .frame: LogFrame.reseal(&out.bytes)
        case .segmentIndex, .partitionIndex, .manifest, .mark:
            if bytes.count >= 8 { out.sealFromEight() }
        case .identifiers: break
        }
        return out.bytes
    }
}
