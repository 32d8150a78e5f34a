import Base
import RecordFormat

/// Walks the frames of one WAL file in order and says where it cannot go on.
struct FrameWalker {
    enum Step {
        case frame(LogFrame.Description, at: Int64, bytes: [UInt8])
        /// No valid frame at `from`; the next one that is valid, if any.
        case damage(from: Int64, resume: (description: LogFrame.Description, at: Int64)?)
    }

    let file: any LogFile
    var offset: Int64
    let end: Int64
    /// No frame behind damage may begin before it: what looks like one is an event's data.
    var nextSequence: UInt64 = 0
    /// What the disk gives no bytes of is an error, and not yet damage: the next time it may give them.
    var refusesUnreadable = false

    mutating func next() throws(EventLogError) -> Step? {
        guard offset < end else { return nil }
        if let (description, bytes) = try frame(at: offset) {
            let at = offset
            offset += Int64(description.size)
            nextSequence = description.endSequence
            return .frame(description, at: at, bytes: bytes)
        }
        return .damage(from: offset, resume: try resume(after: offset))
    }

    /// If the damaged frame's envelope is whole, the next frame stands where it says; only without it is every byte
    /// tried, where an event's data might look like a frame.
    private func resume(after offset: Int64) throws(EventLogError) -> (description: LogFrame.Description, at: Int64)? {
        if let size = try salvage(at: offset)?.size, let found = try frame(at: offset + Int64(size)) {
            return (found.0, offset + Int64(size))
        }
        return try search(after: offset)
    }

    func frame(at offset: Int64) throws(EventLogError) -> (LogFrame.Description, [UInt8])? {
        guard offset + Int64(LogFrame.headerSize) <= end else { return nil }
        guard let head = try readable(at: offset, count: LogFrame.headerSize),
            let size = head.withUnsafeBytes({ LogFrame.statedSize($0) })?.frame, Int64(size) <= end - offset,
            let bytes = try readable(at: offset, count: size), bytes.count == size
        else { return nil }
        do {
            return (try bytes.withRaw { raw throws(EventLogError) in try LogFrame.decode(raw) }, bytes)
        } catch {
            return nil
        }
    }

    /// The envelope at a place where the frame as a whole is damaged, for learning what was lost.
    func salvage(at offset: Int64) throws(EventLogError) -> LogFrame.Description? {
        guard offset + Int64(LogFrame.headerSize) <= end else { return nil }
        guard let head = try readable(at: offset, count: LogFrame.headerSize),
            let size = head.withUnsafeBytes({ LogFrame.statedSize($0) })?.envelope,
            let bytes = try readable(at: offset, count: size)
        else { return nil }
        return bytes.withUnsafeBytes { try? LogFrame.decodeEnvelope($0) }
    }

    /// nil where the disk gives an error instead of bytes, if that is to be damage like any other.
    private func readable(at offset: Int64, count: Int) throws(EventLogError) -> [UInt8]? {
        do {
            return try file.read(at: offset, count: count)
        } catch {
            guard error.code == "read-failed", !refusesUnreadable else { throw error }
            return nil
        }
    }

    /// Looks byte by byte for the next magic number that begins a valid frame.
    private func search(after start: Int64) throws(EventLogError) -> (description: LogFrame.Description, at: Int64)? {
        var from = start + 1
        let magic = withUnsafeBytes(of: LogFrame.magic.littleEndian) { [UInt8]($0) }
        while from < end {
            guard let bytes = try readable(at: from, count: Int(min(1 << 20, end - from))) else {
                // A part that the disk does not give at all: the search goes on behind its page.
                from += 4096
                continue
            }
            guard bytes.count >= 4 else { return nil }
            // A segment that was written full of zeros ahead of its use ends in many of them.
            var place = bytes.firstIndex(of: magic[0]) ?? bytes.count
            while place <= bytes.count - 4 {
                let index = place
                place = bytes[(index + 1)...].firstIndex(of: magic[0]) ?? bytes.count
                guard bytes[index + 1] == magic[1], bytes[index + 2] == magic[2], bytes[index + 3] == magic[3] else {
                    continue
                }
                if let found = try frame(at: from + Int64(index)), found.0.firstSequence >= nextSequence,
                    found.0.durableThrough <= found.0.firstSequence
                {
                    return (found.0, from + Int64(index))
                }
            }
            from += Int64(bytes.count - 3)
            if bytes.count < 1 << 20 { return nil }
        }
        return nil
    }
}
