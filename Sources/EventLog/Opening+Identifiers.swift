import Base

/// Event ids of earlier runs.
extension Opening {
    /// The ids of rewritten segments; built again where they are missing. What only cannot be read now is left on the disk
    /// for the upkeep to look at again, and until then counts as lost.
    mutating func loadIdentifiers(_ names: Set<String>) {
        let rebuild = IdentifierRebuild(cache: cache, manifest: manifest)
        for chain in manifest.chains where chain.endSequence > manifest.identifiersFrom {
            let (file, condition) = identifiers(chain.firstSequence)
            if let file, file.endSequence == chain.endSequence {
                sequencer.identifiers.place(file)
                continue
            }
            report.rebuiltIndexes.append(EmbeddedLog.Segment.identifierPath(chain.firstSequence))
            guard !options.readOnly else { continue }
            let built = rebuild.build(
                chain.firstSequence..<chain.endSequence, chain, salvaging: file, stated: file?.count)
            if let lost = built.lost { report.lostIdentifiers.append(lost) }
            place(
                built, chain, isWritten: built.lost == nil || (condition == .damaged && !built.metUnreadable),
                isPartial: built.lost != nil)
        }
        for (lost, isUnreadable) in rebuild.gaps(Array(names)) {
            report.lostIdentifiers.append(lost)
            guard isUnreadable, !options.readOnly else { continue }
            let empty = IdentifierFile.encode(
                firstSequence: lost.sequences.lowerBound, endSequence: lost.sequences.upperBound, newestRecorded: .max,
                partitions: [], entries: [])
            if let file = IdentifierFile.partial(empty) { sequencer.identifiers.place(file) }
        }
        // Segments of which everything was trimmed have no chain any more, but their ids count.
        for name in names.sorted() where name.hasSuffix(".ids") {
            guard let first = UInt64(name.dropLast(4)), first < manifest.chainStart,
                let file = identifiers(first).file, file.endSequence > manifest.identifiersFrom
            else { continue }
            sequencer.identifiers.place(file)
        }
    }

    private mutating func place(
        _ built: IdentifierRebuild.Built, _ chain: Manifest.Chain, isWritten: Bool, isPartial: Bool
    ) {
        let path = EmbeddedLog.Segment.identifierPath(chain.firstSequence)
        // Synced: what it replaces may have been, and the events that it was made from may go soon.
        if isWritten, (try? volume.replace(path, with: built.bytes, durable: true)) != nil,
            let file = IdentifierFile.load(volume, path).file
        {
            sequencer.identifiers.place(file)
        } else {
            // It serves from memory until the disk takes it, or gives what it holds.
            let file =
                isPartial && !isWritten ? IdentifierFile.partial(built.bytes) : IdentifierFile(.bytes(built.bytes))
            guard let file else { return }
            file.makeSuspect()
            sequencer.identifiers.place(file)
        }
    }

    func identifiers(_ first: UInt64) -> (file: IdentifierFile?, condition: IdentifierFile.Condition) {
        let (file, condition) = IdentifierFile.load(volume, EmbeddedLog.Segment.identifierPath(first))
        guard let file, file.firstSequence == first else { return (nil, file == nil ? condition : .damaged) }
        return (file, condition)
    }
}
