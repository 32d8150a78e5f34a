import Base
import CLZ4

/// LZ4 in its frame format, as Kafka's codec 3 uses it.
package enum LZ4Frame {
    /// Below this many bytes compression costs more than it saves.
    package static let smallest = 256

    /// nil when the bytes would not become smaller.
    package static func compress(_ bytes: [UInt8]) -> [UInt8]? {
        guard bytes.count >= smallest else { return nil }
        var preferences = LZ4F_preferences_t()
        preferences.frameInfo.blockMode = LZ4F_blockIndependent
        preferences.frameInfo.blockSizeID = LZ4F_max256KB
        preferences.frameInfo.contentSize = UInt64(bytes.count)
        let bound = LZ4F_compressFrameBound(bytes.count, &preferences)
        var written = 0
        let out = [UInt8](unsafeUninitializedCapacity: bound) { buffer, count in
            written = bytes.withUnsafeBytes {
                LZ4F_compressFrame(buffer.baseAddress, bound, $0.baseAddress, $0.count, &preferences)
            }
            count = LZ4F_isError(written) == 0 ? written : 0
        }
        return out.isEmpty || out.count >= bytes.count ? nil : out
    }

    /// Refuses a frame that would grow beyond `limit` bytes.
    package static func decompress(
        _ bytes: UnsafeRawBufferPointer, limit: Int = 256 << 20
    ) throws(RecordFormatError) -> [UInt8] {
        var context: OpaquePointer?
        guard LZ4F_isError(LZ4F_createDecompressionContext(&context, UInt32(LZ4F_VERSION))) == 0 else {
            throw RecordFormatError("lz4", "liblz4 gave no decompression context", fault: .world, retriable: true)
        }
        defer { LZ4F_freeDecompressionContext(context) }
        var info = LZ4F_frameInfo_t()
        var consumed = bytes.count
        let head = LZ4F_getFrameInfo(context, &info, bytes.baseAddress, &consumed)
        guard LZ4F_isError(head) == 0 else { throw damaged("its header cannot be read") }
        var capacity = info.contentSize > 0 ? Int(clamping: info.contentSize) : max(bytes.count * 4, 64 << 10)
        guard capacity <= limit else { throw damaged("it states \(capacity) bytes, more than the limit of \(limit)") }
        var out = [UInt8](repeating: 0, count: capacity)
        var filled = 0
        var offset = consumed
        while true {
            var produced = capacity - filled
            var taken = bytes.count - offset
            let hint = out.withUnsafeMutableBytes {
                LZ4F_decompress(context, $0.baseAddress! + filled, &produced, bytes.baseAddress! + offset, &taken, nil)
            }
            guard LZ4F_isError(hint) == 0 else { throw damaged(String(cString: LZ4F_getErrorName(hint))) }
            filled += produced
            offset += taken
            if hint == 0 { break }
            if filled == capacity {
                guard capacity < limit else { throw damaged("it grows beyond the limit of \(limit) bytes") }
                capacity = min(capacity * 2, limit)
                out.append(contentsOf: repeatElement(0, count: capacity - out.count))
            } else if taken == 0, produced == 0 {
                throw damaged("it ends early")
            }
        }
        out.removeLast(out.count - filled)
        return out
    }

    private static func damaged(_ what: String) -> RecordFormatError {
        RecordFormatError("bad-lz4", "an LZ4 frame is damaged: \(what)", fault: .world)
    }
}
