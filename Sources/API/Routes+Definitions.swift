import Base
import HTTP

/// Definitions on their way into force.
extension Routes {
    func changes(_ server: HTTPServer) {
        for (path, isPlan) in [("/v1/definitions", false), ("/v1/plan", true)] {
            server.route("POST", path) { [node, long] request in
                let body: JSON
                do {
                    body = try JSON(parsing: request.body)
                } catch let error as BaseError {
                    throw APIError("bad-json", error.message)
                }
                return .json(try await long.run { try isPlan ? node.plan(body) : node.apply(body) })
            }
        }
        server.route("POST", "/v1/definitions/remove") { [node, long] request in
            guard let body = try? JSON(parsing: request.body), let keys = body["definitions"]?.array?.map(\.string),
                !keys.contains(nil)
            else { throw APIError("bad-json", "the body has no list 'definitions' of texts KIND/NAME") }
            return .json(try await long.run { try node.remove(keys.compactMap { $0 }) })
        }
    }
}
