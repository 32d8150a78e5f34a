/// A bound expression that evaluates itself.
indirect enum CELNode: Sendable {
    case literal(CELValue)
    case slot(Int)
    case path([JSONKey], String)
    case hasPath([JSONKey])
    case select(CELNode, String)
    case test(CELNode, String)
    case index(CELNode, CELNode)
    case list([CELNode])
    case map([(CELNode, CELNode)])
    case and(CELNode, CELNode)
    case or(CELNode, CELNode)
    case choose(CELNode, CELNode, CELNode)
    case call(CELFunction, [CELNode])
    case loop(String, CELNode, Int, [CELNode])

    var isLiteral: Bool { if case .literal = self { true } else { false } }

    func evaluate(_ context: inout CELContext) throws(BaseError) -> CELValue {
        switch self {
        case .literal(let value): return value
        case .slot(let slot): return context.slots[slot]
        case .path(let path, let source):
            guard let document = context.document else { throw BaseError("no-data", "no data is bound for: \(source)") }
            guard let node = CELNode.find(path, document) else {
                throw BaseError("no-such-key", "the data has no '\(path.map(\.text).joined(separator: "."))'")
            }
            return CELValue(document, node)
        case .hasPath(let path):
            guard let document = context.document else { return .bool(false) }
            return .bool(CELNode.find(path, document) != nil)
        case .select(let inner, let field):
            return try CELNode.field(try inner.evaluate(&context), field)
        case .test(let inner, let field):
            guard case .map(let entries) = try inner.evaluate(&context) else {
                throw BaseError("bad-type", "has() needs a map to look for '\(field)' in")
            }
            return .bool(entries.contains { CELValue.equal($0.key, .string(field)) })
        case .index(let inner, let place):
            return try CELNode.element(try inner.evaluate(&context), try place.evaluate(&context))
        case .list(let items):
            var values: [CELValue] = []
            values.reserveCapacity(items.count)
            for item in items { values.append(try item.evaluate(&context)) }
            return .list(values)
        case .map(let entries):
            var values: [(key: CELValue, value: CELValue)] = []
            values.reserveCapacity(entries.count)
            for entry in entries {
                values.append((try entry.0.evaluate(&context), try entry.1.evaluate(&context)))
            }
            return .map(values)
        case .and(let left, let right): return try CELNode.logic(left, right, decisive: false, &context)
        case .or(let left, let right): return try CELNode.logic(left, right, decisive: true, &context)
        case .choose(let condition, let yes, let no):
            guard case .bool(let value) = try condition.evaluate(&context) else {
                throw BaseError("bad-type", "the condition before '?' must be true or false")
            }
            return try (value ? yes : no).evaluate(&context)
        case .call(let function, let arguments):
            return try CELNode.call(function, arguments, &context)
        case .loop(let name, let range, let slot, let bodies):
            return try CELNode.loop(name, range, slot, bodies, &context)
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

    private static func field(_ value: CELValue, _ field: String) throws(BaseError) -> CELValue {
        guard case .map(let entries) = value else {
            throw BaseError("bad-type", "a \(value.typeName) has no field '\(field)'")
        }
        for entry in entries { if case .string(field) = entry.key { return entry.value } }
        throw BaseError("no-such-key", "there is no key '\(field)'")
    }

    private static func element(_ value: CELValue, _ place: CELValue) throws(BaseError) -> CELValue {
        switch value {
        case .map(let entries):
            guard let found = entries.first(where: { CELValue.equal($0.key, place) }) else {
                throw BaseError("no-such-key", "there is no such key in the map")
            }
            return found.value
        case .list(let items):
            guard let number = place.number, let index = Int(exactly: number), items.indices.contains(index) else {
                throw BaseError("bad-index", "the list has no such element; it has \(items.count)")
            }
            return items[index]
        default: throw BaseError("bad-type", "a \(value.typeName) cannot be indexed")
        }
    }

    /// CEL's commutative logic: a decisive side wins even when the other raises an error.
    private static func logic(
        _ left: CELNode, _ right: CELNode, decisive: Bool, _ context: inout CELContext
    ) throws(BaseError) -> CELValue {
        var failure: BaseError?
        for side in [left, right] {
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
        case 1: return try function.apply1(try arguments[0].evaluate(&context))
        default:
            let first = try arguments[0].evaluate(&context)
            return try function.apply2(first, try arguments[1].evaluate(&context))
        }
    }

    private static func loop(
        _ name: String, _ range: CELNode, _ slot: Int, _ bodies: [CELNode], _ context: inout CELContext
    ) throws(BaseError) -> CELValue {
        let items: [CELValue]
        switch try range.evaluate(&context) {
        case .list(let list): items = list
        case .map(let entries): items = entries.map(\.key)
        default: throw BaseError("bad-type", "'\(name)' goes over a list or a map")
        }
        while context.slots.count <= slot { context.slots.append(.null) }
        let saved = context.slots[slot]
        defer { context.slots[slot] = saved }
        var kept: [CELValue] = []
        var hits = 0
        var failure: BaseError?
        for item in items {
            context.slots[slot] = item
            do throws(BaseError) {
                if name == "map" {
                    if bodies.count == 2 {
                        guard case .bool(true) = try bodies[0].evaluate(&context) else { continue }
                    }
                    kept.append(try bodies[bodies.count - 1].evaluate(&context))
                    continue
                }
                guard case .bool(let holds) = try bodies[0].evaluate(&context) else {
                    throw BaseError("bad-type", "'\(name)' needs true or false for every element")
                }
                if holds {
                    hits += 1
                    kept.append(item)
                }
                if name == "all", !holds { return .bool(false) }
                if name == "exists", holds { return .bool(true) }
            } catch {
                guard name == "all" || name == "exists" else { throw error }
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
        switch name {
        case "all": return .bool(true)
        case "exists": return .bool(false)
        case "exists_one": return .bool(hits == 1)
        default: return .list(kept)
        }
    }
}
