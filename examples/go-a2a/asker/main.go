// An agent that asks another one: in before without Lineal, in the folder above
// with it.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	"golang.org/x/oauth2"
)

func main() {
	ctx := context.Background()
	helper := a2a.NewAgentInterface(os.Getenv("LINEAL_URL")+"/a2a/helper", a2a.TransportProtocolJSONRPC)
	through := oauth2.NewClient(ctx, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: os.Getenv("LINEAL_TOKEN")}))
	c, err := a2aclient.NewFromEndpoints(ctx, []*a2a.AgentInterface{helper}, a2aclient.WithJSONRPCTransport(through))
	if err != nil {
		log.Fatal(err)
	}
	result, err := c.SendMessage(ctx, &a2a.SendMessageRequest{Message: a2a.NewMessage(a2a.MessageRoleUser, a2a.NewTextPart("EU"))})
	if err != nil {
		log.Fatal(err)
	}
	answer, ok := result.(*a2a.Message)
	if !ok {
		log.Fatalf("answered with a %T", result)
	}
	fmt.Println(answer.Parts[0].Text())
}
