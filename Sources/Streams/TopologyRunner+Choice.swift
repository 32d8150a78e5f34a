import Base
import EventLog

/// What is folded next.
extension TopologyRunner {
    /// Events set aside before the next slice.
    private static let parkedLimit = 1 << 16

    func step() throws -> Bool {
        var choice = choose()
        let parkedBefore = parked
        // An input that bounds nothing must have been looked at since the head came: what arrived with the head is there.
        while choice.best < 0 || choice.place >= choice.bound
            || choice.oldestUnbounded < inputs[choice.best].fetchedVersion, try refill()
        {
            choice = choose()
            // So much is set aside at a time: then memory and checkpoints are looked after, and it goes on.
            guard parked - parkedBefore < Self.parkedLimit else { return false }
        }
        let best = choice.best
        // What a topology that is taken over from had folded is wanted whole: a late event's place is behind its stream time.
        if best >= 0, choice.place.time > (inputs[best].endsWanted ? horizon : lastMoment) {
            return try fireTimer(upTo: min(lastMoment, choice.bound.time))
        }
        // Without a releasable head, watermarks alone decide; a finished source ends at what it was complete through.
        if best < 0 || choice.place >= choice.bound {
            var watermark = choice.bound.time
            if best >= 0 { watermark = min(watermark, choice.place.timersBefore) }
            if !choice.bounded, best < 0, !isSilent {
                watermark = inputs.map(\.completeThrough).max() ?? .distantPast
            }
            return try fireTimer(upTo: min(watermark, lastMoment))
        }
        if try fireTimer(upTo: choice.place.timersBefore) { return true }
        if choice.waits { try foldWaiting() } else { try foldHead(best) }
        return true
    }

    /// What is in turn next, and the place before which no input without a head can still deliver.
    struct Choice {
        /// Of the input; -1 where nothing is there.
        var best = -1
        var place = FoldPlace.end
        /// It was read before, and waits.
        var waits = false
        var bound = FoldPlace.end
        var bounded = false
        var oldestUnbounded = UInt64.max
    }

    func choose() -> Choice {
        var choice = Choice()
        let hold = context.holds.count == 0 ? nil : context.holds.values.map(\.until).min()
        for index in inputs.indices {
            if inputs[index].hasHead {
                if choice.best < 0 || inputs[index].headPlace < choice.place {
                    choice.best = index
                    choice.place = inputs[index].headPlace
                }
            } else if let limit = inputs[index].bound(hold: hold) {
                choice.bounded = true
                choice.bound = min(choice.bound, limit)
            } else {
                choice.oldestUnbounded = min(choice.oldestUnbounded, inputs[index].fetchedVersion)
            }
        }
        if !topology.sorted.isEmpty { chooseWaiting(&choice) }
        return choice
    }

    /// Reads on where nothing waits. Reading late is safe: an input without a head is bounded by what it promised.
    func refill() throws -> Bool {
        var came = false
        for index in inputs.indices where !inputs[index].hasHead {
            if inputs[index].sorts {
                if try readSorted(index) { came = true }
                continue
            }
            // What the writer says first: the events that it speaks of are there by then.
            if try inputs[index].follow(log, progressDocument) { came = true }
            while !inputs[index].hasHead, try inputs[index].fetch(log, progressDocument) {
                came = true
                inputs[index].absorbProgress(progressDocument)
            }
            if try !inputs[index].hasHead && inputs[index].follow(log, progressDocument) { came = true }
        }
        return came
    }
}
