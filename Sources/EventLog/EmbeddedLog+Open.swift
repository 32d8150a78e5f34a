import Base
import CPlatform
import Foundation
import RecordFormat

extension EmbeddedLog {
    /// Opens the log in a directory, creating it when there is none, and recovers its tail.
    ///
    /// Damage above the durable mark is a torn tail and is cut off; damage below it is rot and stays where it is, named
    /// in `recovery.damaged`, with everything around it readable.
    package static func open(_ directory: String, options: Options = Options()) throws(EventLogError) -> EmbeddedLog {
        var lock: LogFile?
        if !options.readOnly {
            do {
                try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            } catch {
                throw EventLogError(
                    "open-failed", "cannot create the directory \(directory)", cause: error, fault: .world)
            }
            let file = try LogFile(path: directory + "/LOCK", create: true)
            guard headrace_lock_exclusive(file.descriptor) == 0 else {
                throw EventLogError("locked", "another node owns the log in \(directory); talk to it, or stop it first")
            }
            lock = file
        }
        var opening = Opening(directory: directory, options: options)
        try opening.load()
        var tail: WriterState?
        if !options.readOnly { tail = try opening.startWriting() }
        return EmbeddedLog(
            directory: directory, options: options, lock: lock, sequencer: opening.sequencer, shared: opening.shared,
            recovery: opening.report, tail: tail)
    }
}

extension EmbeddedLog {
    /// Whether a living process owns the log in a directory: the lock says so, whatever pid files may say.
    package static func isOwned(_ directory: String) -> Bool {
        guard let file = try? LogFile(path: directory + "/LOCK", create: false) else { return false }
        return headrace_lock_exclusive(file.descriptor) != 0
    }
}

/// The durable mark as read from its file.
private struct DurableMark {
    let segment: UInt64
    let end: Int64
    let sequence: UInt64
    let hash: Digest

    init?(_ bytes: [UInt8]) {
        guard bytes.count >= 60 else { return nil }
        var reader: (UInt64, Int64, UInt64, Digest)?
        bytes.withUnsafeBytes { raw in
            var cursor = ByteReader(raw)
            guard let segment = try? cursor.little(UInt64.self), let end = try? cursor.little(Int64.self),
                let sequence = try? cursor.little(UInt64.self), let slice = try? cursor.slice(32),
                let hash = Digest(slice),
                let crc = try? cursor.little(UInt32.self), crc == headrace_crc32c(0, raw.baseAddress, 56)
            else { return }
            reader = (segment, end, sequence, hash)
        }
        guard let reader else { return nil }
        (segment, end, sequence, hash) = reader
    }
}

/// The work of opening: sealed segments from their indexes, the last one by scanning what its index does not cover.
private struct Opening {
    let directory: String
    let options: EmbeddedLog.Options
    var sequencer = EmbeddedLog.Sequencer()
    var shared = EmbeddedLog.Shared()
    var report = RecoveryReport()
    private var mark: DurableMark?
    /// There is a mark and it cannot be read: then nothing is cut off.
    private var markIsDamaged = false
    private var lastIndex = SegmentIndexFile()
    private var nextSequence: UInt64 = 0
    private var lastHash = Digest.zero
    /// Where partitions ended in frames that are lost: their offsets are never given again.
    private var lostEnds: [TopicPartition: Int64] = [:]
    /// Events lost in frames whose table is unreadable too.
    private var unknownLost: Int64 = 0

    init(directory: String, options: EmbeddedLog.Options) {
        self.directory = directory
        self.options = options
    }

    mutating func load() throws(EventLogError) {
        if let bytes = FileManager.default.contents(atPath: directory + "/durable.mark") {
            mark = DurableMark([UInt8](bytes))
            markIsDamaged = mark == nil && !bytes.isEmpty
        }
        let names: [String]
        do {
            names = try FileManager.default.contentsOfDirectory(atPath: directory)
        } catch {
            throw EventLogError("open-failed", "cannot list the directory \(directory)", cause: error, fault: .world)
        }
        let segments = names.filter { $0.hasSuffix(".wal") && $0.utf8.count == 24 }.sorted()
        for (number, name) in segments.enumerated() {
            guard let first = UInt64(name.dropLast(4)) else { continue }
            try loadSegment(directory + "/" + name, first, number, isLast: number == segments.count - 1)
        }
        compareWithMark()
        shared.durableSequence = nextSequence
        shared.lastHash = lastHash
        sequencer.nextSequence = nextSequence
        for partition in shared.index.partitions + lostEnds.keys.sorted() {
            let number = sequencer.number(of: partition)
            sequencer.nextOffsets[number] = max(shared.index.end(partition), lostEnds[partition] ?? 0) + unknownLost
        }
        report.events = nextSequence
        report.damaged = shared.damaged
    }

    /// The mark knows how far the log once was on disk, and the hash there.
    private mutating func compareWithMark() {
        guard let mark else { return }
        if mark.sequence > nextSequence {
            let file = shared.segments.last?.file.path ?? EmbeddedLog.segmentPath(directory, mark.segment)
            let end = shared.segments.last?.end ?? 0
            shared.damaged.append(
                DamagedRange(file: file, from: end, to: max(mark.end, end), sequences: nextSequence..<mark.sequence))
            unknownLost += Int64(mark.sequence - nextSequence)
            nextSequence = mark.sequence
            lastHash = mark.hash
        } else if mark.sequence == nextSequence {
            // If the last frame is not the one that was written, the chain goes on from the one that was, and shows it.
            lastHash = mark.hash
        }
    }

    private mutating func loadSegment(
        _ path: String, _ first: UInt64, _ number: Int, isLast: Bool
    ) throws(EventLogError) {
        let file = try LogFile(path: path, create: false, readOnly: options.readOnly)
        var segment = EmbeddedLog.Segment(firstSequence: first, file: file, end: 0)
        var index = SegmentIndexFile()
        let size = file.size
        let indexPath = EmbeddedLog.indexPath(path)
        if let bytes = FileManager.default.contents(atPath: indexPath),
            let stored = SegmentIndexFile([UInt8](bytes), segment: Int32(number)), stored.coveredBytes <= size
        {
            index = stored
            segment.end = stored.coveredBytes
            adopt(stored)
        } else if !isLast {
            report.rebuiltIndexes.append(indexPath)
        }
        nextSequence = max(nextSequence, max(first, index.nextSequence))
        if index.coveredBytes > 0 { lastHash = index.lastHash }
        // A sealed segment ends where its index says; anything else is scanned.
        if segment.end < size {
            try scan(&segment, &index, number, size: size, isLast: isLast)
        }
        shared.segments.append(segment)
        lastIndex = index
    }

    private mutating func adopt(_ index: SegmentIndexFile) {
        for (partition, entry) in index.batches {
            shared.index.append(entry, to: shared.index.number(of: index.partitions[Int(partition)]))
        }
        let numbers = index.partitions.map { UInt32(sequencer.number(of: $0)) }
        for identifier in index.identifiers {
            _ = sequencer.identifiers.insert(
                (identifier.0, identifier.1), partition: numbers[Int(identifier.partition)], offset: identifier.offset)
        }
    }

    /// Walks frames from `segment.end`, deciding at each damage whether it is a torn tail or rot.
    private mutating func scan(
        _ segment: inout EmbeddedLog.Segment, _ index: inout SegmentIndexFile, _ number: Int, size: Int64, isLast: Bool
    ) throws(EventLogError) {
        var walker = FrameWalker(file: segment.file, offset: segment.end, end: size)
        while let step = try walker.next() {
            switch step {
            case .frame(let description, let at, let bytes):
                try add(description, at, bytes, number, &index)
                segment.end = at + Int64(description.size)
                nextSequence = description.firstSequence + UInt64(description.eventCount)
                lastHash = Digest.of(bytes)
            case .damage(let from, let resume):
                guard let next = try damage(&segment, from, resume, size: size, isLast: isLast) else { return }
                walker.offset = next
            }
        }
    }

    /// Decides what a damaged place is, and gives where to go on; nil ends the segment.
    private mutating func damage(
        _ segment: inout EmbeddedLog.Segment, _ from: Int64, _ resume: (description: LogFrame.Description, at: Int64)?,
        size: Int64, isLast: Bool
    ) throws(EventLogError) -> Int64? {
        let isEmpty = try isZero(segment.file, from, size)
        let durableEnd = mark.map { $0.segment == segment.firstSequence ? $0.end : 0 } ?? 0
        func cut() {
            guard !isEmpty else { return }
            report.truncatedBytes = size - from
            report.truncatedFile = segment.file.path
        }
        if let resume {
            if isLast, mark != nil, from >= durableEnd, resume.description.durableThrough <= nextSequence {
                // It was written in one group with the damaged one, and that group never was on disk as a whole.
                cut()
                return nil
            }
            // A frame follows, so this was not the tail when it was written.
            let after = max(resume.description.firstSequence, nextSequence)
            try note(
                DamagedRange(file: segment.file.path, from: from, to: resume.at, sequences: nextSequence..<after),
                segment.file)
            return resume.at
        }
        guard from < durableEnd || !isLast || (markIsDamaged && !isEmpty) else {
            cut()
            return nil
        }
        let to = isLast && !markIsDamaged ? durableEnd : size
        let through = max(isLast ? mark?.sequence ?? nextSequence : nextSequence, nextSequence)
        try note(
            DamagedRange(file: segment.file.path, from: from, to: to, sequences: nextSequence..<through), segment.file)
        nextSequence = through
        segment.end = to
        lastHash = mark?.hash ?? lastHash
        return nil
    }

    /// Keeps the range and learns from what is left of the frame which offsets are gone.
    private mutating func note(_ range: DamagedRange, _ file: LogFile) throws(EventLogError) {
        shared.damaged.append(range)
        let count = Int(min(range.to - range.from, Int64(LogFrame.maximumSize)))
        let bytes = try file.read(at: range.from, count: count)
        let first = range.sequences.lowerBound
        if let frame = bytes.withUnsafeBytes({ LogFrame.salvage($0) }), frame.firstSequence == first,
            frame.eventCount == range.sequences.count,
            frame.batches.allSatisfy({
                $0.baseOffset == max(shared.index.end($0.partition), lostEnds[$0.partition] ?? 0)
            })
        {
            for batch in frame.batches {
                lostEnds[batch.partition] = max(lostEnds[batch.partition] ?? 0, batch.baseOffset + Int64(batch.count))
            }
        } else {
            unknownLost += Int64(range.sequences.count)
        }
    }

    private func isZero(_ file: LogFile, _ from: Int64, _ to: Int64) throws(EventLogError) -> Bool {
        var offset = from
        while offset < to {
            let bytes = try file.read(at: offset, count: Int(min(1 << 20, to - offset)))
            if bytes.isEmpty { return true }
            if bytes.contains(where: { $0 != 0 }) { return false }
            offset += Int64(bytes.count)
        }
        return true
    }

    private mutating func add(
        _ frame: LogFrame.Description, _ at: Int64, _ bytes: [UInt8], _ number: Int, _ index: inout SegmentIndexFile
    ) throws(EventLogError) {
        for batch in frame.batches {
            let entry = try EmbeddedLog.entry(batch, bytes, at, number)
            shared.index.append(entry, to: shared.index.number(of: batch.partition))
            index.batches.append((index.number(of: batch.partition), entry))
            try identify(batch, bytes, &index)
        }
    }

    private mutating func identify(
        _ batch: LogFrame.Batch, _ bytes: [UInt8], _ index: inout SegmentIndexFile
    ) throws(EventLogError) {
        let decoded: RecordBatch
        do {
            decoded = try bytes.withRaw { raw throws(RecordFormatError) in
                try RecordBatch(UnsafeRawBufferPointer(rebasing: raw[batch.start..<batch.start + batch.size]))
            }
        } catch {
            throw EventLogError("bad-frame", "a batch of \(batch.partition) is damaged", cause: error, fault: .world)
        }
        var topic = batch.partition.topic
        let seed = topic.withUTF8 { stableHash(UnsafeRawBufferPointer($0), seed: 7) }
        let number = UInt32(sequencer.number(of: batch.partition))
        for record in decoded.records.indices {
            let event = StoredEvent(batch: decoded, index: record)
            let hash = IdentifierTable.hash(topic: seed, source: event.header(EventHeader.source) ?? "", id: event.id)
            _ = sequencer.identifiers.insert(hash, partition: number, offset: event.offset)
            index.identifiers.append((hash.0, hash.1, index.number(of: batch.partition), event.offset))
        }
    }

    mutating func startWriting() throws(EventLogError) -> WriterState {
        if shared.segments.isEmpty {
            shared.segments.append(try EmbeddedLog.createSegment(directory, firstSequence: 0))
        }
        let number = shared.segments.count - 1
        let segment = shared.segments[number]
        if segment.file.size > segment.end { try segment.file.truncate(to: segment.end) }
        let state = WriterState(
            segment: segment, segmentNumber: number, index: lastIndex,
            keepsIndex: !shared.damaged.contains { $0.file == segment.file.path }, previousHash: lastHash,
            durableSequence: nextSequence, mark: try LogFile(path: directory + "/durable.mark", create: true))
        try segment.file.sync()
        try LogFile.syncDirectory(directory)
        try EmbeddedLog.writeMark(state)
        return state
    }
}
