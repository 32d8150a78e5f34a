import Base

/// From recovery to the first append.
extension Opening {
    /// Writes what stands above the mark once more. If a sync failed in an earlier run, the system may have marked these
    /// pages clean although the disk never saw them; reading them proves nothing, and only writing makes them dirty again.
    private func rewriteTail(of segment: EmbeddedLog.Segment) throws(EventLogError) {
        var offset = durableEnd(segment.firstSequence)
        while offset < segment.end {
            let bytes = try segment.file.read(at: offset, count: Int(min(1 << 20, segment.end - offset)))
            guard !bytes.isEmpty else { return }
            try segment.file.write(bytes, at: offset)
            offset += Int64(bytes.count)
        }
    }

    mutating func startWriting() throws(EventLogError) -> WriterState {
        try rememberLosses()
        if shared.segments.isEmpty {
            shared.segments.append(try EmbeddedLog.createSegment(volume, firstSequence: nextSequence))
        }
        let segment = shared.segments[shared.segments.count - 1]
        if segment.file.size > segment.end { try segment.file.truncate(to: segment.end) }
        if lastIndex.batches.isEmpty || !lastIsIntact {
            // One that says more than there is would be believed once there is as much again.
            try volume.remove(EmbeddedLog.Segment.indexPath(segment.firstSequence))
        }
        var state = WriterState(
            segment: segment, index: lastIndex, keepsIndex: lastIsIntact, prior: lastPrior, previousHash: lastHash,
            durableSequence: nextSequence, writtenSequence: nextSequence,
            mark: try volume.open(DurableMark.path, .create))
        // Counted anew from here: it only decides when a quiet segment is sealed.
        state.oldestRecorded = segment.end > 0 ? options.wallClock().milliseconds : nil
        try rewriteTail(of: segment)
        try segment.file.sync()
        try EmbeddedLog.writeMark(state)
        // From here on there is a mark after any crash: an old one at worst.
        try state.mark.sync()
        try volume.syncDirectory("")
        return state
    }
}
