extension CELNode {
    /// optMap and optFlatMap.
    static func bind(
        _ value: CELValue, _ slot: Int, _ body: CELNode, _ isFlat: Bool, _ context: inout CELContext
    ) throws(BaseError) -> CELValue {
        guard case .optional(let inner) = value else {
            throw BaseError("bad-type", "optMap and optFlatMap need an optional, not a \(value.typeName)")
        }
        guard let inner else { return .optional(nil) }
        context.make(slot)
        let saved = context.slots[slot]
        defer { context.slots[slot] = saved }
        context.slots[slot] = inner
        let result = try body.evaluate(&context)
        guard isFlat else { return .optional(result) }
        guard case .optional = result else {
            throw BaseError("bad-type", "optFlatMap needs an optional from its expression, not a \(result.typeName)")
        }
        return result
    }

    /// A macro over the elements of a list or the keys of a map; with two variables over index and element or key and value.
    static func loop(
        _ loop: CELLoop, _ range: CELValue, _ slot: Int, _ variables: Int, _ bodies: [CELNode],
        _ context: inout CELContext
    ) throws(BaseError) -> CELValue {
        let count: Int
        switch range {
        case .list(let items): count = items.count
        case .map(let entries): count = entries.count
        default: throw BaseError("bad-type", "'\(loop.rawValue)' goes over a list or a map, not a \(range.typeName)")
        }
        context.make(slot + variables - 1)
        let saved = context.slots[slot..<slot + variables]
        defer { context.slots.replaceSubrange(slot..<slot + variables, with: saved) }
        var result = LoopResult(loop)
        for index in 0..<count {
            try context.spend(1)
            let (key, value): (CELValue, CELValue) =
                switch range {
                case .list(let items): (.int(Int64(index)), items[index])
                case .map(let entries): entries[index]
                default: (.null, .null)
                }
            let isMap = if case .map = range { true } else { false }
            context.slots[slot] = variables == 2 || isMap ? key : value
            if variables == 2 { context.slots[slot + 1] = value }
            if let early = try result.add(key, context.slots[slot], bodies, &context) { return early }
        }
        return try result.value()
    }

    /// What a macro has so far.
    private struct LoopResult {
        let loop: CELLoop
        var kept: [CELValue] = []
        var entries: [(key: CELValue, value: CELValue)] = []
        var hits = 0
        var failure: BaseError?

        init(_ loop: CELLoop) { self.loop = loop }

        /// Takes one element in; a value when it decides.
        mutating func add(
            _ key: CELValue, _ element: CELValue, _ bodies: [CELNode], _ context: inout CELContext
        ) throws(BaseError) -> CELValue? {
            switch loop {
            case .map, .transformList, .transformMap:
                if bodies.count == 2, !(try holds(bodies[0], &context)) { return nil }
                let made = try bodies[bodies.count - 1].evaluate(&context)
                if loop == .transformMap { entries.append((key, made)) } else { kept.append(made) }
            case .filter: if try holds(bodies[0], &context) { kept.append(element) }
            case .existsOne: if try holds(bodies[0], &context) { hits += 1 }
            case .all, .exists:
                do throws(BaseError) {
                    let isDecisive = try holds(bodies[0], &context) == (loop == .exists)
                    if isDecisive { return .bool(loop == .exists) }
                } catch {
                    // Another element may decide it yet.
                    failure = failure ?? error
                }
            }
            return nil
        }

        private func holds(_ body: CELNode, _ context: inout CELContext) throws(BaseError) -> Bool {
            guard case .bool(let holds) = try body.evaluate(&context) else {
                throw BaseError("bad-type", "'\(loop.rawValue)' needs true or false for every element")
            }
            return holds
        }

        func value() throws(BaseError) -> CELValue {
            if let failure { throw failure }
            switch loop {
            case .all: return .bool(true)
            case .exists: return .bool(false)
            case .existsOne: return .bool(hits == 1)
            case .transformMap: return .map(entries)
            default: return .list(kept)
            }
        }
    }
}
