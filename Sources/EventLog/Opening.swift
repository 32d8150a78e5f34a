import Base
import RecordFormat

extension EmbeddedLog {
    /// Opens the log in a directory, creating it when there is none, and recovers its tail.
    package static func open(_ directory: String, options: Options = Options()) throws(EventLogError) -> EmbeddedLog {
        try open(DiskVolume(directory), options: options)
    }

    /// Opens the log on a volume.
    ///
    /// Damage above the durable mark is a torn tail and is cut off; damage below it is rot and stays where it is, named
    /// in `recovery.damaged`, with everything around it readable.
    package static func open(
        _ volume: any LogVolume, options: Options = Options()
    ) throws(EventLogError) -> EmbeddedLog {
        var lock: (any Sendable)?
        if !options.readOnly {
            try volume.makeDirectory("")
            lock = try volume.lock()
        }
        var opening = Opening(volume: volume, options: options)
        try opening.load()
        var tail: WriterState?
        if !options.readOnly { tail = try opening.startWriting() }
        let log = EmbeddedLog(opening, volume: volume, options: options, lock: lock, tail: tail)
        do throws(EventLogError) {
            try log.recallProducers()
        } catch {
            log.close()
            throw error
        }
        return log
    }

    /// Whether a living process owns the log in a directory: the lock says so, whatever pid files may say.
    package static func isOwned(_ directory: String) -> Bool { DiskVolume(directory).isLocked }
}

/// The work of opening: partition files by the manifest, sealed segments from their indexes, the last segment by scanning
/// what its index does not cover.
struct Opening {
    let volume: any LogVolume
    let options: EmbeddedLog.Options
    let cache: FileCache
    var sequencer = Sequencer()
    var shared = EmbeddedLog.Shared()
    var report = RecoveryReport()
    var manifest = Manifest()
    var sealed: [SealedSegment] = []
    var mark: DurableMark?
    /// Of the segment being read: what stood in it when it was whole, at a clean stop.
    var stale: SegmentIndexFile?
    /// Where the last whole frame of the segment being read ends.
    var lastGood: Int64 = 0
    /// There is a mark and it cannot be read: then nothing is cut off.
    private var markIsDamaged = false
    var lastIndex = SegmentIndexFile()
    var lastPrior: IdentifierFile?
    var lastIsIntact = true
    var nextSequence: UInt64 = 0
    var lastHash = Digest.zero
    /// The disk gives no bytes of what stands last, so nobody knows what the next frame is to follow.
    private var headIsUnreadable = false
    /// Events that are lost, nobody knows in which partitions.
    var unknownLost: Int64 = 0
    /// What is gone from the WAL without a trace in it, and not in the manifest yet.
    var losses: [DamagedRange] = []
    /// Some of what seems lost may only be away.
    var metUnreadable = false

    init(volume: any LogVolume, options: EmbeddedLog.Options) {
        self.volume = volume
        self.options = options
        cache = FileCache(volume)
    }

    mutating func load() throws(EventLogError) {
        let names = try volume.list()
        try refuseOldFormat(names)
        if names.contains(DurableMark.path) {
            let bytes = volume.contents(DurableMark.path)
            mark = bytes.flatMap { DurableMark($0) }
            markIsDamaged = mark == nil && bytes?.isEmpty != true
            if markIsDamaged { report.mark = .damaged }
        } else if names.contains(where: { $0.hasSuffix(".wal") || $0.hasSuffix(".chain") }) {
            report.mark = .missing
        }
        if let known = try Manifest.load(volume) {
            manifest = known
        } else {
            try refuseWithoutManifest(names)
        }
        if !options.readOnly { try manifest.restoreCopies(volume) }
        try tidy(names)
        adoptManifest()
        loadIdentifiers(Set(names))
        let segments = names.compactMap { name -> UInt64? in
            guard name.hasSuffix(".wal"), name.utf8.count == 24 else { return nil }
            return UInt64(name.dropLast(4))
        }.filter { $0 >= manifest.rewrittenThrough }
        for (number, first) in segments.enumerated() {
            try loadSegment(first, isLast: number == segments.count - 1)
        }
        compareWithMark()
        guard !headIsUnreadable || options.readOnly else {
            throw EventLogError(
                "read-failed",
                "the disk gives bytes neither of the last append in \(volume.path)/\(shared.segments.last?.path ?? "") nor of '\(DurableMark.path)', which would say what stands there; try again, or restore a backup. Nothing was changed",
                fault: .world, retriable: true)
        }
        shared.durableSequence = nextSequence
        shared.lastHash = lastHash
        sequencer.nextSequence = nextSequence
        for number in shared.partitions.list.indices {
            if unknownLost > 0 {
                let end = shared.partitions[number].end
                shared.partitions[number].lostEnd = end + unknownLost
                shared.partitions[number].doubtful.append(end..<end + unknownLost)
            }
            let known = shared.partitions[number]
            sequencer.setNextOffset(known.partition, known.end)
        }
        report.events = nextSequence
        report.damaged = shared.damaged
    }

    private func refuseOldFormat(_ names: [String]) throws(EventLogError) {
        guard let first = names.first(where: { $0.hasSuffix(".wal") }), let file = try? volume.open(first, .read),
            let magic = try? file.read(at: 0, count: 4), magic == [UInt8]("HRF1".utf8)
        else { return }
        throw EventLogError(
            "old-format",
            "\(volume.path)/\(first) has format 1 of an earlier Headrace; this one reads format 2. Start with an empty directory and import again"
        )
    }

    /// A log of which segments have moved has a manifest; without it nobody knows which files are valid.
    private func refuseWithoutManifest(_ names: [String]) throws(EventLogError) {
        // Before the first segment has moved there is none, even when a chain file was begun.
        guard let moved = names.first(where: { $0.hasSuffix(".chain") }), !names.contains(EmbeddedLog.Segment.path(0))
        else { return }
        throw EventLogError(
            "manifest-damaged",
            "\(volume.path) holds \(moved) but neither 'manifest' nor 'manifest.copy'; `headrace log repair --from BACKUP` takes it from a backup where that is of the same state. Nothing was changed",
            fault: .world)
    }

    /// Takes away what an interrupted rewriting, trimming or compaction left: nothing that the manifest names.
    private mutating func tidy(_ names: [String]) throws(EventLogError) {
        var valid: [String: Int64] = [:]
        for partition in manifest.partitions {
            for file in partition.files {
                let path = file.path(partition.partition)
                valid[path] = file.bytes
                valid[PartitionFile.indexPath(path)] = -1
            }
        }
        for name in names {
            if name.hasPrefix(EmbeddedLog.quarantine + "/") { continue }
            let isLeftover =
                name.hasSuffix(".tmp") || name == EmbeddedLog.spare || (name.contains("/") && valid[name] == nil)
                || (name.hasSuffix(".wal") && (UInt64(name.dropLast(4)) ?? .max) < manifest.rewrittenThrough)
                || (name.hasSuffix(".chain") && !manifest.chains.contains { $0.path == name })
            if isLeftover, options.readOnly {
                report.removed.append(name)
            } else if isLeftover, manifest.damaged.contains(where: { $0.file == EmbeddedLog.quarantine + "/" + name }) {
                try volume.makeDirectory(EmbeddedLog.quarantine)
                try volume.rename(name, EmbeddedLog.quarantine + "/" + name)
            } else if isLeftover {
                try volume.remove(name)
                report.removed.append(name)
            } else if let bytes = valid[name], bytes >= 0, !options.readOnly {
                let file = try volume.open(name, .write)
                if file.size > bytes { try file.truncate(to: bytes) }
            }
        }
        for (path, bytes) in valid.sorted(by: { $0.key < $1.key }) where bytes >= 0 {
            let size = names.contains(path) ? (try? volume.open(path, .read))?.size ?? 0 : 0
            guard size < bytes else { continue }
            shared.damaged.append(DamagedRange(file: path, from: size, to: bytes, sequences: 0..<0))
        }
    }

    private mutating func adoptManifest() {
        for record in manifest.partitions {
            let number = shared.partitions.number(of: record.partition)
            shared.partitions[number].start = record.start
            shared.partitions[number].lostEnd = record.end
            shared.partitions[number].files = record.files.map { PartitionFile(record.partition, $0, cache) }
        }
        for loss in manifest.losses {
            let number = shared.partitions.number(of: loss.partition)
            shared.partitions[number].lostEnd = max(shared.partitions[number].lostEnd, loss.offsets.upperBound)
            if !loss.isCertain { shared.partitions[number].doubtful.append(loss.offsets) }
        }
        shared.damaged += manifest.damaged
        sequencer.producers = manifest.producers
        nextSequence = manifest.rewrittenThrough
        lastHash = manifest.rewrittenHash
    }

    /// The mark knows how far the log once was on disk, and the hash there.
    private mutating func compareWithMark() {
        guard let mark else { return }
        if mark.sequence > nextSequence {
            let isMissing = !shared.segments.contains { $0.firstSequence == mark.segment }
            if isMissing {
                stale = volume.contents(EmbeddedLog.Segment.indexPath(mark.segment)).flatMap { SegmentIndexFile($0) }
            }
            let end = isMissing ? 0 : shared.segments.last?.end ?? 0
            lose(
                DamagedRange(
                    file: EmbeddedLog.Segment.path(isMissing ? mark.segment : shared.segments.last?.firstSequence ?? 0),
                    from: end, to: max(mark.end, end), sequences: nextSequence..<mark.sequence), behind: end)
            nextSequence = mark.sequence
            lastHash = mark.hash
            lastIsIntact = false
            headIsUnreadable = false
        } else if mark.sequence == nextSequence {
            headIsUnreadable = false
            // If the last frame is not the one that was written, the chain goes on from the one that was, and shows it.
            lastHash = mark.hash
        }
    }

    // MARK: WAL segments

    private mutating func loadSegment(_ first: UInt64, isLast: Bool) throws(EventLogError) {
        let file = try volume.open(EmbeddedLog.Segment.path(first), options.readOnly ? .read : .write)
        var segment = EmbeddedLog.Segment(firstSequence: first, file: file, end: 0)
        var index = SegmentIndexFile()
        let size = file.size
        let damagedBefore = shared.damaged.count
        let prior = identifiers(first).file
        if let prior { sequencer.identifiers.place(prior) }
        lastGood = 0
        stale = volume.contents(EmbeddedLog.Segment.indexPath(first)).flatMap { SegmentIndexFile($0) }
        if let known = stale, known.coveredBytes <= size { stale = nil }
        if let bytes = volume.contents(EmbeddedLog.Segment.indexPath(first)),
            let stored = SegmentIndexFile(bytes), stored.coveredBytes <= size,
            // Ids that are in no file come from scanning.
            stored.batches.isEmpty || (prior?.endSequence ?? 0) >= stored.nextSequence
        {
            index = stored
            if stored.coveredBytes > 0 { headIsUnreadable = false }
            segment.end = stored.coveredBytes
            adopt(stored, first)
        } else if !isLast || volume.contents(EmbeddedLog.Segment.indexPath(first)) != nil {
            // The segment being written has one only after a clean stop.
            report.rebuiltIndexes.append(EmbeddedLog.Segment.indexPath(first))
        }
        if first > nextSequence {
            // A whole segment is missing.
            let missing = EmbeddedLog.Segment.path(nextSequence)
            lose(DamagedRange(file: missing, from: 0, to: 0, sequences: nextSequence..<first), behind: nil)
        }
        nextSequence = max(nextSequence, max(first, index.nextSequence))
        if index.coveredBytes > 0 { lastHash = index.lastHash }
        // A sealed segment ends where its index says; anything else is scanned.
        if segment.end < size {
            try scan(&segment, &index, size: size, isLast: isLast, priorEnd: prior?.endSequence ?? 0)
        }
        if let stale, stale.nextSequence > nextSequence {
            // It was all on the disk once.
            lose(
                DamagedRange(
                    file: segment.path, from: segment.end, to: max(stale.coveredBytes, segment.end),
                    sequences: nextSequence..<stale.nextSequence), behind: lastGood)
            nextSequence = stale.nextSequence
            lastHash = stale.lastHash
            headIsUnreadable = false
        }
        shared.segments.append(segment)
        lastIsIntact = shared.damaged.count == damagedBefore
        if isLast {
            lastIndex = index
            lastPrior = prior
        } else {
            index.coveredBytes = segment.end
            index.nextSequence = nextSequence
            index.lastHash = lastHash
            sealed.append(
                SealedSegment(
                    segment: segment, index: index, keepsIndex: lastIsIntact, prior: prior,
                    // What could not be read may be readable later, and then its ids are missing.
                    isIndexed: lastIsIntact && prior.map { $0.endSequence >= nextSequence } ?? false,
                    // Below every ticket: the ids that were scanned may stand in the segment that goes on.
                    writtenTicket: -1))
        }
    }

    private mutating func adopt(_ index: SegmentIndexFile, _ first: UInt64) {
        for (partition, entry) in index.batches {
            shared.partitions.append(entry, segment: first, to: index.partitions[Int(partition)])
        }
        for (batch, stamp) in index.producers {
            let (partition, entry) = index.batches[Int(batch)]
            sequencer.producers.note(
                stamp, count: Int(entry.count), partition: index.partitions[Int(partition)], offset: entry.baseOffset,
                recordedTime: index.newestRecorded)
        }
    }

    /// Walks frames from `segment.end`, deciding at each damage whether it is a torn tail or rot.
    private mutating func scan(
        _ segment: inout EmbeddedLog.Segment, _ index: inout SegmentIndexFile, size: Int64, isLast: Bool,
        priorEnd: UInt64
    ) throws(EventLogError) {
        var walker = FrameWalker(file: segment.file, offset: segment.end, end: size)
        while let step = try step(&walker, segment.firstSequence, isLast: isLast) {
            switch step {
            case .frame(let description, let at, let bytes):
                if description.firstSequence > nextSequence {
                    // Lost before this one was written.
                    lose(
                        DamagedRange(
                            file: segment.path, from: at, to: at, sequences: nextSequence..<description.firstSequence),
                        behind: nil)
                }
                try add(description, at, bytes, segment.firstSequence, &index, priorEnd: priorEnd)
                report.scannedBytes += Int64(description.size)
                segment.end = at + Int64(description.size)
                lastGood = segment.end
                headIsUnreadable = false
                nextSequence = description.endSequence
                lastHash = bytes.withUnsafeBytes {
                    Digest.of(UnsafeRawBufferPointer(rebasing: $0[..<description.envelopeSize]))
                }
            case .damage(let from, let resume):
                guard let next = try damage(&segment, walker, from, resume, isLast: isLast) else { return }
                walker.offset = next
            }
        }
    }

    /// What the disk gives no bytes of is damage where it was durable once. In the tail it would be cut off, so there the log
    /// rather does not open.
    private mutating func step(
        _ walker: inout FrameWalker, _ first: UInt64, isLast: Bool
    ) throws(EventLogError) -> FrameWalker.Step? {
        walker.refusesUnreadable = true
        do {
            return try walker.next()
        } catch {
            guard error.code == "read-failed", !isLast || walker.offset < durableEnd(first) else { throw error }
            walker.refusesUnreadable = false
            (headIsUnreadable, metUnreadable) = (true, true)
            return try walker.next()
        }
    }

    /// Bytes of a segment that were once on the disk, as the mark says.
    func durableEnd(_ first: UInt64) -> Int64 { mark.map { $0.segment == first ? $0.end : 0 } ?? 0 }

    /// Decides what a damaged place is, and gives where to go on; nil ends the segment.
    private mutating func damage(
        _ segment: inout EmbeddedLog.Segment, _ walker: FrameWalker, _ from: Int64,
        _ resume: (description: LogFrame.Description, at: Int64)?, isLast: Bool
    ) throws(EventLogError) -> Int64? {
        let size = walker.end
        let durableEnd = durableEnd(segment.firstSequence)
        let lastWritten: Int64?
        do {
            lastWritten = try lastNonZero(segment.file, from, size)
        } catch {
            guard error.code == "read-failed", !isLast || from < durableEnd else { throw error }
            // Behind the mark stands what was acknowledged since. While it cannot be read nobody may cut it off.
            if isLast { _ = try lastNonZero(segment.file, durableEnd, size) }
            lastWritten = size - 1
        }
        let isEmpty = lastWritten == nil
        func cut(_ report: inout RecoveryReport) {
            guard let last = lastWritten else { return }
            // Behind it stand only the zeros that were there before anything was written.
            report.truncatedBytes = last + 1 - from
            report.truncatedFile = segment.path
        }
        if let resume {
            if isLast, mark != nil, from >= durableEnd,
                try durableThrough(walker, from: resume.at) <= nextSequence
            {
                // It was written in one group with the damaged one, and that group never was on disk as a whole.
                cut(&report)
                return nil
            }
            // A frame follows that was written when this one was on disk.
            let after = max(resume.description.firstSequence, nextSequence)
            try note(
                DamagedRange(file: segment.path, from: from, to: resume.at, sequences: nextSequence..<after), walker)
            nextSequence = after
            return resume.at
        }
        guard from < durableEnd || !isLast || (markIsDamaged && !isEmpty) else {
            cut(&report)
            return nil
        }
        let to = isLast && !markIsDamaged ? durableEnd : size
        let through = max(isLast ? mark?.sequence ?? nextSequence : nextSequence, nextSequence)
        try note(DamagedRange(file: segment.path, from: from, to: to, sequences: nextSequence..<through), walker)
        nextSequence = through
        segment.end = to
        lastHash = mark?.hash ?? lastHash
        return nil
    }

    /// What the frames from an offset on say was on disk when they were written.
    private func durableThrough(_ walker: FrameWalker, from offset: Int64) throws(EventLogError) -> UInt64 {
        var walker = walker
        walker.offset = offset
        var newest: UInt64 = 0
        while let step = try walker.next() {
            switch step {
            case .frame(let description, _, _): newest = max(newest, description.durableThrough)
            case .damage(_, let resume): walker.offset = resume?.at ?? walker.end
            }
        }
        return newest
    }

    /// Keeps the range and learns from what is left of the frame which offsets are gone.
    private mutating func note(_ range: DamagedRange, _ walker: FrameWalker) throws(EventLogError) {
        shared.damaged.append(range)
        let first = range.sequences.lowerBound
        if let frame = try walker.salvage(at: range.from), frame.firstSequence == first,
            frame.eventCount == range.sequences.count
        {
            for batch in frame.batches {
                let number = shared.partitions.number(of: batch.partition)
                shared.partitions[number].lostEnd = max(shared.partitions[number].lostEnd, batch.end)
            }
        } else if !attribute(range.sequences, behind: range.from) {
            unknownLost += Int64(range.sequences.count)
        }
    }

    /// Where the last byte of a range stands that is not zero; nil where all are.
    private func lastNonZero(_ file: any LogFile, _ from: Int64, _ to: Int64) throws(EventLogError) -> Int64? {
        var end = to
        while end > from {
            let start = max(from, end - (1 << 20))
            let bytes = try file.read(at: start, count: Int(end - start))
            if let last = bytes.lastIndex(where: { $0 != 0 }) { return start + Int64(last) }
            end = start
        }
        return nil
    }

    private mutating func add(
        _ frame: LogFrame.Description, _ at: Int64, _ bytes: [UInt8], _ segment: UInt64,
        _ index: inout SegmentIndexFile, priorEnd: UInt64
    ) throws(EventLogError) {
        index.newestRecorded = max(index.newestRecorded, frame.recordedTime)
        for batch in frame.batches {
            let entry = try EmbeddedLog.entry(batch, bytes, at)
            shared.partitions.append(entry, segment: segment, to: batch.partition)
            index.append(entry, batch.partition, batch.producer)
            sequencer.producers.note(
                batch.producer, count: batch.count, partition: batch.partition, offset: batch.baseOffset,
                recordedTime: frame.recordedTime)
            guard batch.isDeduplicated, frame.endSequence > priorEnd else { continue }
            let known = index.identifiers.count
            try index.identify(batch, try EmbeddedLog.records(batch, bytes), frame.recordedTime)
            let number = UInt32(sequencer.number(of: batch.partition))
            for identifier in index.identifiers[known...] {
                sequencer.identifiers.insert(identifier.hash, partition: number, offset: identifier.offset)
            }
        }
    }
}
