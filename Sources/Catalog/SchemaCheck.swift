import Base

/// One run of a schema over a document.
struct SchemaCheck {
    let document: JSONDocument
    let references: [String: SchemaNode]
    var violation: SchemaViolation?
    /// References followed without stepping into the document; a schema that only refers to itself ends here.
    private static let referenceLimit = 100

    init(document: JSONDocument, references: [String: SchemaNode]) {
        self.document = document
        self.references = references
    }

    mutating func run(_ schema: SchemaNode, _ node: Int, _ depth: Int) -> Bool {
        switch schema {
        case .always(let flag): return flag ? true : fail(node, "is not allowed here")
        case .rules(let object):
            for rule in object.rules where !apply(rule, node, depth) { return false }
            return true
        }
    }

    private mutating func fail(_ node: Int, _ message: @autoclosure () -> String) -> Bool {
        if violation == nil {
            violation = SchemaViolation(path: path(of: node), message: message())
        }
        return false
    }

    private func path(of target: Int) -> String {
        var parts: [String] = []
        var node = 0
        while node != target {
            var next: (String, Int)?
            document.forEachMember(node) { key, value in
                if value <= target, target < Int(document.nodes[value].next) {
                    next = (document.string(key) ?? "", value)
                }
            }
            var index = 0
            document.forEachElement(node) { element in
                if element <= target, target < Int(document.nodes[element].next) { next = (String(index), element) }
                index += 1
            }
            guard let (name, inner) = next else { break }
            parts.append(name)
            node = inner
        }
        return parts.isEmpty ? "" : "/" + parts.joined(separator: "/")
    }

    private func types(_ node: Int) -> SchemaTypes {
        switch document.kind(node) {
        case .null: return .null
        case .trueValue, .falseValue: return .boolean
        case .string: return .string
        case .array: return .array
        case .object: return .object
        case .number:
            if document.int(node) != nil { return [.integer, .number] }
            if let value = document.double(node), value == value.rounded() { return [.integer, .number] }
            return .number
        }
    }

    private mutating func apply(_ rule: SchemaRule, _ node: Int, _ depth: Int) -> Bool {
        switch rule {
        case .types(let allowed):
            if !allowed.isDisjoint(with: types(node)) { return true }
            let names = SchemaTypes.names.filter { allowed.contains($0.1) }.map(\.0).joined(separator: " or ")
            return fail(node, "must be of type \(names)")
        case .constant(let value):
            return equal(node, value) || fail(node, "must be \(value.text)")
        case .oneOfValues(let values):
            return values.contains { equal(node, $0) } || fail(node, "must be one of \(JSON.array(values).text)")
        case .minimum, .maximum, .exclusiveMinimum, .exclusiveMaximum, .multipleOf: return number(rule, node)
        case .minLength, .maxLength, .pattern: return text(rule, node)
        case .minItems, .maxItems, .uniqueItems, .items, .prefixItems, .contains: return array(rule, node, depth)
        case .allOf, .anyOf, .oneOf, .not, .conditional, .reference: return combination(rule, node, depth)
        default: return document.kind(node) != .object || object(rule, node, depth)
        }
    }

    private mutating func number(_ rule: SchemaRule, _ node: Int) -> Bool {
        guard document.kind(node) == .number, let value = document.double(node) else { return true }
        switch rule {
        case .minimum(let bound): return value >= bound || fail(node, "must be at least \(bound)")
        case .maximum(let bound): return value <= bound || fail(node, "must be at most \(bound)")
        case .exclusiveMinimum(let bound): return value > bound || fail(node, "must be above \(bound)")
        case .exclusiveMaximum(let bound): return value < bound || fail(node, "must be below \(bound)")
        case .multipleOf(let step):
            let quotient = (value / step).rounded()
            let whole = quotient.isFinite && abs(quotient * step - value) <= abs(value) * 1e-12
            return whole || fail(node, "must be a multiple of \(step)")
        default: return true
        }
    }

    private mutating func text(_ rule: SchemaRule, _ node: Int) -> Bool {
        guard document.kind(node) == .string, let text = document.string(node) else { return true }
        switch rule {
        case .minLength(let bound):
            return text.unicodeScalars.count >= bound || fail(node, "must have at least \(bound) characters")
        case .maxLength(let bound):
            return text.unicodeScalars.count <= bound || fail(node, "must have at most \(bound) characters")
        case .pattern(let pattern): return pattern.matches(text) || fail(node, "must match \(pattern.source)")
        default: return true
        }
    }

    private mutating func array(_ rule: SchemaRule, _ node: Int, _ depth: Int) -> Bool {
        guard document.kind(node) == .array else { return true }
        let count = Int(document.nodes[node].count)
        var elements: [Int] = []
        document.forEachElement(node) { elements.append($0) }
        switch rule {
        case .minItems(let bound): return count >= bound || fail(node, "must have at least \(bound) items")
        case .maxItems(let bound): return count <= bound || fail(node, "must have at most \(bound) items")
        case .uniqueItems:
            let values = elements.map { (try? document.value($0)) ?? .null }
            for index in values.indices {
                for other in values.indices where other > index && values[index].schemaEquals(values[other]) {
                    return fail(node, "must not repeat an item")
                }
            }
            return true
        case .prefixItems(let schemas):
            for (schema, element) in zip(schemas, elements) where !run(schema, element, 0) { return false }
            return true
        case .items(let schema, let after):
            for element in elements.dropFirst(after) where !run(schema, element, 0) { return false }
            return true
        case .contains(let schema, let least, let most):
            let hits = elements.filter { probe(schema, $0, 0) }.count
            return (hits >= least && hits <= most ?? .max) || fail(node, "holds \(hits) items that match 'contains'")
        default: return true
        }
    }

    private mutating func object(_ rule: SchemaRule, _ node: Int, _ depth: Int) -> Bool {
        let count = Int(document.nodes[node].count)
        switch rule {
        case .minProperties(let bound): return count >= bound || fail(node, "must have at least \(bound) properties")
        case .maxProperties(let bound): return count <= bound || fail(node, "must have at most \(bound) properties")
        case .required(let names):
            for name in names where document.member(node, name) == nil { return fail(node, "lacks '\(name.text)'") }
            return true
        case .properties(let list):
            for (name, schema) in list {
                if let value = document.member(node, name), !run(schema, value, 0) { return false }
            }
            return true
        case .dependentRequired(let list):
            for (name, wanted) in list where document.member(node, name) != nil {
                for other in wanted where document.member(node, other) == nil {
                    return fail(node, "has '\(name.text)' and so needs '\(other.text)'")
                }
            }
            return true
        case .dependentSchemas(let list):
            for (name, schema) in list where document.member(node, name) != nil && !run(schema, node, depth) {
                return false
            }
            return true
        default: return members(rule, node)
        }
    }

    private mutating func members(_ rule: SchemaRule, _ node: Int) -> Bool {
        var pairs: [(String, Int)] = []
        document.forEachMember(node) { key, value in pairs.append((document.string(key) ?? "", value)) }
        switch rule {
        case .patternProperties(let list):
            for (name, value) in pairs {
                for (pattern, schema) in list where pattern.matches(name) && !run(schema, value, 0) { return false }
            }
        case .additional(let schema, let known, let patterns):
            for (name, value) in pairs where !known.contains(name) && !patterns.contains(where: { $0.matches(name) }) {
                if case .always(false) = schema { return fail(value, "is an unknown property") }
                if !run(schema, value, 0) { return false }
            }
        case .propertyNames(let schema):
            for (name, value) in pairs {
                guard let text = try? JSONDocument(JSON.string(name).text) else { continue }
                var inner = SchemaCheck(document: text, references: references)
                if !inner.run(schema, 0, 0) { return fail(value, "has a name that is not allowed") }
            }
        default: break
        }
        return true
    }

    /// Runs a schema without keeping its violation.
    private mutating func probe(_ schema: SchemaNode, _ node: Int, _ depth: Int) -> Bool {
        let saved = violation
        defer { violation = saved }
        return run(schema, node, depth)
    }

    private mutating func combination(_ rule: SchemaRule, _ node: Int, _ depth: Int) -> Bool {
        switch rule {
        case .allOf(let list):
            for schema in list where !run(schema, node, depth) { return false }
            return true
        case .anyOf(let list):
            for schema in list where probe(schema, node, depth) { return true }
            return fail(node, "matches no schema of 'anyOf'")
        case .oneOf(let list):
            var hits = 0
            for schema in list where probe(schema, node, depth) { hits += 1 }
            return hits == 1 || fail(node, "matches \(hits) schemas of 'oneOf', not one")
        case .not(let schema): return !probe(schema, node, depth) || fail(node, "matches what 'not' forbids")
        case .conditional(let condition, let then, let otherwise):
            if probe(condition, node, depth) { return then.map { run($0, node, depth) } ?? true }
            return otherwise.map { run($0, node, depth) } ?? true
        case .reference(let pointer):
            guard depth < SchemaCheck.referenceLimit, let target = references[pointer] else {
                return fail(node, "is checked by a '$ref' that never ends")
            }
            return run(target, node, depth + 1)
        default: return true
        }
    }

    private func equal(_ node: Int, _ value: JSON) -> Bool {
        if case .string(let text) = value { return document.string(node)?.utf8.elementsEqual(text.utf8) ?? false }
        guard let own = try? document.value(node) else { return false }
        return own.schemaEquals(value)
    }
}

extension JSON {
    /// Equality of JSON Schema: 1 and 1.0 are equal, 1 and true are not.
    func schemaEquals(_ other: JSON) -> Bool {
        switch (self, other) {
        case (.null, .null): true
        case (.bool(let a), .bool(let b)): a == b
        // Code points decide, not canonical equivalence.
        case (.string(let a), .string(let b)): a.utf8.elementsEqual(b.utf8)
        case (.int(let a), .int(let b)): a == b
        case (.int, .double), (.double, .int), (.double, .double): double == other.double
        case (.array(let a), .array(let b)): a.count == b.count && zip(a, b).allSatisfy { $0.schemaEquals($1) }
        case (.object(let a), .object(let b)):
            a.count == b.count && a.allSatisfy { key, value in b[key].map { value.schemaEquals($0) } ?? false }
        default: false
        }
    }
}
