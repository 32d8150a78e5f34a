import Base
import CLZ4
import Synchronization

/// LZ4 in its frame format, as Kafka's codec 3 uses it.
package enum LZ4Frame {
    /// Below this many bytes compression costs more than it saves.
    package static let smallest = 256

    /// nil when the bytes would not become smaller.
    package static func compress(_ bytes: UnsafeRawBufferPointer) -> [UInt8]? {
        guard bytes.count >= smallest else { return nil }
        var preferences = LZ4F_preferences_t()
        preferences.frameInfo.blockMode = LZ4F_blockIndependent
        preferences.frameInfo.blockSizeID = LZ4F_max256KB
        preferences.frameInfo.contentSize = UInt64(bytes.count)
        let bound = LZ4F_compressFrameBound(bytes.count, &preferences)
        let out = [UInt8](unsafeUninitializedCapacity: bound) { buffer, count in
            let written = LZ4F_compressFrame(
                buffer.baseAddress, bound, bytes.baseAddress, bytes.count, &preferences)
            count = LZ4F_isError(written) == 0 ? written : 0
        }
        return out.isEmpty || out.count >= bytes.count ? nil : out
    }

    /// Refuses a frame that would grow beyond `limit` bytes.
    package static func decompress(
        _ bytes: UnsafeRawBufferPointer, limit: Int = 256 << 20
    ) throws(RecordFormatError) -> [UInt8] {
        let context = try DecompressionContext.take()
        let out = try decompress(bytes, limit: limit, context)
        // Only after success: a context that met damage is in an unknown state and is thrown away.
        DecompressionContext.giveBack(context)
        return out
    }

    private static func decompress(
        _ bytes: UnsafeRawBufferPointer, limit: Int, _ context: DecompressionContext
    ) throws(RecordFormatError) -> [UInt8] {
        var info = LZ4F_frameInfo_t()
        var consumed = bytes.count
        let head = LZ4F_getFrameInfo(context.pointer, &info, bytes.baseAddress, &consumed)
        guard LZ4F_isError(head) == 0 else { throw damaged("its header cannot be read") }
        guard info.contentSize <= UInt64(limit) else {
            throw damaged("it states \(info.contentSize) bytes, more than the limit of \(limit)")
        }
        // A block of LZ4 grows at most 255-fold, so a stated size beyond that is a lie not worth an allocation.
        guard info.contentSize <= UInt64(bytes.count) * 255 + 64 else {
            throw damaged("it states \(info.contentSize) bytes in \(bytes.count)")
        }
        var out: [UInt8] = []
        var capacity = info.contentSize > 0 ? Int(info.contentSize) : min(max(bytes.count * 4, 64 << 10), limit)
        var offset = consumed
        while true {
            let step = capacity - out.count
            var hint = 0
            var taken = bytes.count - offset
            var produced = 0
            let fill = { (buffer: UnsafeMutableRawPointer?) in
                produced = step
                hint = LZ4F_decompress(
                    context.pointer, buffer, &produced, bytes.baseAddress.map { $0 + offset }, &taken, nil)
                if LZ4F_isError(hint) != 0 { produced = 0 }
            }
            if out.isEmpty {
                // The usual case in one piece, into memory that nobody has cleared before.
                out = [UInt8](unsafeUninitializedCapacity: step) { buffer, count in
                    fill(buffer.baseAddress)
                    count = produced
                }
            } else {
                let more = [UInt8](unsafeUninitializedCapacity: step) { buffer, count in
                    fill(buffer.baseAddress)
                    count = produced
                }
                out.append(contentsOf: more)
            }
            guard LZ4F_isError(hint) == 0 else { throw damaged(String(cString: LZ4F_getErrorName(hint))) }
            offset += taken
            if hint == 0 { return out }
            if out.count == capacity {
                guard capacity < limit else { throw damaged("it grows beyond the limit of \(limit) bytes") }
                capacity = min(max(capacity * 2, 64 << 10), limit)
            } else if taken == 0, produced == 0 {
                throw damaged("it ends early")
            }
        }
    }

    private static func damaged(_ what: String) -> RecordFormatError {
        RecordFormatError("bad-lz4", "an LZ4 frame is damaged: \(what)", fault: .world)
    }
}

/// A decompression context of liblz4, kept for the next frame: a new one allocates a block's worth of buffers.
/// Sendable because it is owned by one call at a time; the pool's lock hands it over.
private final class DecompressionContext: @unchecked Sendable {
    /// Contexts that wait for the next frame; more are freed.
    private static let limit = 8
    private static let pool = Mutex<[DecompressionContext]>([])

    let pointer: OpaquePointer

    private init(_ pointer: OpaquePointer) { self.pointer = pointer }

    deinit { LZ4F_freeDecompressionContext(pointer) }

    static func take() throws(RecordFormatError) -> DecompressionContext {
        if let ready = pool.withLock({ $0.popLast() }) { return ready }
        var context: OpaquePointer?
        guard LZ4F_isError(LZ4F_createDecompressionContext(&context, UInt32(LZ4F_VERSION))) == 0, let context else {
            throw RecordFormatError("lz4", "liblz4 gave no decompression context", fault: .world, retriable: true)
        }
        return DecompressionContext(context)
    }

    static func giveBack(_ context: DecompressionContext) {
        LZ4F_resetDecompressionContext(context.pointer)
        pool.withLock { if $0.count < limit { $0.append(context) } }
    }
}
