/// A bound expression that evaluates itself.
indirect enum CELNode: Sendable {
    case literal(CELValue)
    /// What was not known when an unchecked expression was read.
    case failure(BaseError)
    case slot(Int)
    case path([JSONKey], String)
    case hasPath([JSONKey])
    case select(CELNode, String, optional: Bool)
    case test(CELNode, String, optional: Bool)
    case index(CELNode, CELNode, optional: Bool)
    case list([(item: CELNode, optional: Bool)])
    case map([(key: CELNode, value: CELNode, optional: Bool)])
    case logic(isOr: Bool, [CELNode])
    case choose(CELNode, CELNode, CELNode)
    case call(CELFunction, [CELNode])
    /// A regular expression that does not change.
    case matches(CELNode, CELPattern)
    /// `or` and `orValue`: the second is looked at only when the first holds nothing.
    case otherwise(CELNode, CELNode, isValue: Bool)
    /// The variables are in this slot and the next.
    case loop(CELLoop, CELNode, slot: Int, variables: Int, [CELNode])
    case bind(CELNode, slot: Int, CELNode, isFlat: Bool)

    var isLiteral: Bool { if case .literal = self { true } else { false } }

    func evaluate(_ context: inout CELContext) throws(BaseError) -> CELValue {
        switch self {
        case .literal(let value): return value
        case .failure(let error): throw error
        case .slot(let slot):
            guard slot < context.slots.count else { throw BaseError("no-data", "a variable has no value") }
            return context.slots[slot]
        case .path(let path, let source):
            guard let document = context.document else { throw BaseError("no-data", "no data is bound for: \(source)") }
            guard let node = CELNode.find(path, document) else {
                throw BaseError("no-such-key", "the data has no '\(path.map(\.text).joined(separator: "."))'")
            }
            // A list or an object is made anew each time.
            let size = document.size(of: node)
            if size > 1 { try context.spend(size) }
            return CELValue(document, node)
        case .hasPath(let path):
            guard let document = context.document else { return .bool(false) }
            return .bool(CELNode.find(path, document) != nil)
        case .select(let inner, let field, let optional):
            let value = try inner.evaluate(&context)
            try context.spend(value.entryCount)
            return try CELNode.element(value, .string(field), optional, isField: true)
        case .test(let inner, let field, let optional):
            return .bool(try CELNode.has(try inner.evaluate(&context), field, optional))
        case .index(let inner, let place, let optional):
            let value = try inner.evaluate(&context)
            try context.spend(value.entryCount)
            return try CELNode.element(value, try place.evaluate(&context), optional, isField: false)
        case .list(let items): return try CELNode.list(items, &context)
        case .map(let entries): return try CELNode.map(entries, &context)
        case .logic(let isOr, let sides): return try CELNode.logic(sides, decisive: isOr, &context)
        case .choose(let condition, let yes, let no):
            guard case .bool(let value) = try condition.evaluate(&context) else {
                throw BaseError("bad-type", "the condition before '?' must be true or false")
            }
            return try (value ? yes : no).evaluate(&context)
        case .call(let function, let arguments): return try CELNode.call(function, arguments, &context)
        case .matches(let inner, let pattern):
            let value = try inner.evaluate(&context)
            guard case .string(let text) = value else { throw CELFunction.matches.wrong([value, .string("")]) }
            try context.spend(text.utf8.count >> 6)
            return .bool(pattern.isFound(in: text))
        case .otherwise(let first, let second, let isValue):
            return try CELNode.otherwise(first, second, isValue, &context)
        case .loop(let loop, let range, let slot, let variables, let bodies):
            return try CELNode.loop(loop, try range.evaluate(&context), slot, variables, bodies, &context)
        case .bind(let inner, let slot, let body, let isFlat):
            return try CELNode.bind(try inner.evaluate(&context), slot, body, isFlat, &context)
        }
    }

    static func find(_ path: [JSONKey], _ document: JSONDocument) -> Int? {
        var node = 0
        for key in path {
            guard let next = document.member(node, key) else { return nil }
            node = next
        }
        return node
    }

    /// What stands under a key or at an index. An optional is looked into; with `?` the answer is an optional.
    private static func element(
        _ value: CELValue, _ place: CELValue, _ optional: Bool, isField: Bool
    ) throws(BaseError) -> CELValue {
        if case .optional(let inner) = value {
            guard let inner else { return .optional(nil) }
            return .optional(try content(inner, place, isField))
        }
        let found = try content(value, place, isField)
        if optional { return .optional(found) }
        guard let found else {
            guard case .list(let items) = value else {
                throw BaseError("no-such-key", "there is no key '\(place.label ?? place.typeName)'")
            }
            throw BaseError("bad-index", "the list has no such element; it has \(items.count)")
        }
        return found
    }

    private static func content(_ value: CELValue, _ place: CELValue, _ isField: Bool) throws(BaseError) -> CELValue? {
        switch value {
        case .map(let entries): return CELValue.find(place, in: entries)
        case .list(let items) where !isField:
            guard place.isNumber, let number = place.number else {
                throw BaseError("bad-type", "a list is indexed by a number, not a \(place.typeName)")
            }
            guard let index = Int(exactly: number), items.indices.contains(index) else { return nil }
            return items[index]
        default:
            let what = isField ? "has no field '\(place.label ?? "")'" : "cannot be indexed"
            throw BaseError("bad-type", "a \(value.typeName) \(what)")
        }
    }

    private static func has(_ value: CELValue, _ field: String, _ optional: Bool) throws(BaseError) -> Bool {
        switch value {
        case .map(let entries): return CELValue.find(.string(field), in: entries) != nil
        case .optional(nil): return false
        case .optional(let inner?): return try has(inner, field, optional)
        default: throw BaseError("bad-type", "has() needs a map to look for '\(field)' in")
        }
    }

    private static func list(
        _ items: [(item: CELNode, optional: Bool)], _ context: inout CELContext
    ) throws(BaseError) -> CELValue {
        var values: [CELValue] = []
        values.reserveCapacity(items.count)
        for (item, optional) in items {
            let value = try item.evaluate(&context)
            guard optional else {
                values.append(value)
                continue
            }
            if let inner = try held(value) { values.append(inner) }
        }
        return .list(values)
    }

    private static func map(
        _ entries: [(key: CELNode, value: CELNode, optional: Bool)], _ context: inout CELContext
    ) throws(BaseError) -> CELValue {
        var values: [(key: CELValue, value: CELValue)] = []
        values.reserveCapacity(entries.count)
        for (keyNode, valueNode, optional) in entries {
            let key = try keyNode.evaluate(&context)
            switch key {
            case .int, .uint, .bool, .string: break
            default: throw BaseError("bad-key", "a \(key.typeName) is no key of a map")
            }
            try context.spend(values.count)
            guard CELValue.find(key, in: values) == nil else {
                throw BaseError("repeated-key", "the key '\(key.label ?? "")' stands twice in a map")
            }
            let value = try valueNode.evaluate(&context)
            guard optional else {
                values.append((key, value))
                continue
            }
            if let inner = try held(value) { values.append((key, inner)) }
        }
        return .map(values)
    }

    private static func held(_ value: CELValue) throws(BaseError) -> CELValue? {
        guard case .optional(let inner) = value else {
            throw BaseError("bad-type", "behind '?' an optional must stand, not a \(value.typeName)")
        }
        return inner
    }

    private static func otherwise(
        _ first: CELNode, _ second: CELNode, _ isValue: Bool, _ context: inout CELContext
    ) throws(BaseError) -> CELValue {
        let value = try first.evaluate(&context)
        guard case .optional(let inner) = value else {
            throw BaseError("bad-type", "'\(isValue ? "orValue" : "or")' needs an optional, not a \(value.typeName)")
        }
        if let inner { return isValue ? inner : value }
        let other = try second.evaluate(&context)
        if !isValue, case .optional = other { return other }
        guard isValue else { throw BaseError("bad-type", "'or' takes an optional, not a \(other.typeName)") }
        return other
    }

    /// CEL's commutative logic: a decisive side wins even when the others raise errors.
    private static func logic(
        _ sides: [CELNode], decisive: Bool, _ context: inout CELContext
    ) throws(BaseError) -> CELValue {
        var failure: BaseError?
        for side in sides {
            do throws(BaseError) {
                guard case .bool(let value) = try side.evaluate(&context) else {
                    throw BaseError("bad-type", "both sides of \(decisive ? "||" : "&&") must be true or false")
                }
                if value == decisive { return .bool(decisive) }
            } catch {
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
        return .bool(!decisive)
    }

    private static func call(
        _ function: CELFunction, _ arguments: [CELNode], _ context: inout CELContext
    ) throws(BaseError) -> CELValue {
        switch arguments.count {
        case 1:
            let value = try arguments[0].evaluate(&context)
            try context.spend(function.cost(value, .null))
            return try function.apply1(value)
        case 2:
            let first = try arguments[0].evaluate(&context)
            let second = try arguments[1].evaluate(&context)
            try context.spend(function.cost(first, second))
            return try function.apply2(first, second)
        default:
            var values: [CELValue] = []
            for argument in arguments { values.append(try argument.evaluate(&context)) }
            if values.count > 2 { try context.spend(function.cost(values[0], values[1])) }
            return try function.apply(values)
        }
    }
}
