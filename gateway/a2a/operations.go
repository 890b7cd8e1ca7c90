package a2a

import (
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// operation is what one operation means to scope and policy.
type operation struct {
	action    string
	discovery bool
	streams   bool // the answer is a stream of events
	only10    bool // 0.3 has no such method of JSON-RPC
	// read reads the parameters.
	read func(*call, strictjson.Value) error
	// result reads what comes back.
	result func(*answer, strictjson.Value) (strictjson.Value, error)
}

// The operations, by their names in version 1.0.
const (
	opSend        = "SendMessage"
	opStream      = "SendStreamingMessage"
	opGet         = "GetTask"
	opList        = "ListTasks"
	opCancel      = "CancelTask"
	opSubscribe   = "SubscribeToTask"
	opPushCreate  = "CreateTaskPushNotificationConfig"
	opPushGet     = "GetTaskPushNotificationConfig"
	opPushList    = "ListTaskPushNotificationConfigs"
	opPushDelete  = "DeleteTaskPushNotificationConfig"
	opGetCard     = "GetExtendedAgentCard"
	pushConfigs   = "pushNotificationConfigs"
	segmentTasks  = "tasks"
	pathCard10    = "extendedAgentCard"
	pathCard03    = "card"
	pathPrefix03  = "v1"
	verbSend      = "message:send"
	verbStream    = "message:stream"
	verbCancel    = ":cancel"
	verbSubscribe = ":subscribe"
)

// operations is the closed list (gateway.md §4). What is not in it is refused.
var operations = map[string]operation{
	opSend:      {action: scope.A2ASend, read: (*call).readSend, result: (*answer).event},
	opStream:    {action: scope.A2ASend, streams: true, read: (*call).readSend, result: (*answer).event},
	opGet:       {action: scope.A2ATask, read: (*call).readTask, result: (*answer).task},
	opList:      {action: scope.A2ATask, only10: true, read: (*call).readList, result: (*answer).list},
	opCancel:    {action: scope.A2ACancel, read: (*call).readTask, result: (*answer).task},
	opSubscribe: {action: scope.A2ATask, streams: true, read: (*call).readTask, result: (*answer).event},

	opGetCard: {action: actionCard, discovery: true, read: (*call).readCard, result: (*answer).card},

	opPushCreate: {action: scope.A2APush, read: (*call).readPushCreate, result: (*answer).pushConfig},
	opPushGet:    {action: scope.A2APush, read: (*call).readPushConfig, result: (*answer).pushConfig},
	opPushList:   {action: scope.A2APush, read: (*call).readPushConfig, result: (*answer).pushConfigList},
	opPushDelete: {action: scope.A2APush, read: (*call).readPushConfig, result: (*answer).nothing},
}

// actionCard is the action of an agent's card, a discovery.
const actionCard = "a2a:card"

// methods03 are the names that JSON-RPC has for them in version 0.3.
var methods03 = map[string]string{
	"message/send": opSend, "message/stream": opStream, "tasks/get": opGet, "tasks/cancel": opCancel, "tasks/resubscribe": opSubscribe,
	"tasks/pushNotificationConfig/set": opPushCreate, "tasks/pushNotificationConfig/get": opPushGet,
	"tasks/pushNotificationConfig/list": opPushList, "tasks/pushNotificationConfig/delete": opPushDelete,
	"agent/getAuthenticatedExtendedCard": opGetCard,
}

// Operations lists what the reader knows, with the action of each, for tests
// that hold the table against policy's.
func Operations() map[string]string {
	out := make(map[string]string, len(operations))
	for name, op := range operations {
		out[name] = op.action
	}
	return out
}
