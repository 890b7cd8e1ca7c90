// Command clients calls through the gateway with the official Go SDKs of model
// providers: what each case must come to is checked, and printed as a count.
//
//	clients < the JSON object that the rig printed
//
// It is a module of its own: the product must not carry the SDKs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/conversations"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

// rig is where the gateway is, and a token for each route.
type rig struct {
	Front  string            `json:"front"`
	Tokens map[string]string `json:"tokens"`
}

const wait = 2 * time.Minute

func main() {
	var r rig
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		fail(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for _, run := range []func(context.Context, rig) error{openAI, anthropicAPI} {
		if err := run(ctx, r); err != nil {
			fail(err)
		}
	}
	fmt.Printf("{\"go\":%d}\n", passed)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "clients:", err)
	os.Exit(1)
}

var passed int

// check counts what holds and ends the run at what does not.
func check(name string, ok bool, got ...any) {
	if !ok {
		fail(fmt.Errorf("%s: %v", name, got))
	}
	passed++
}

// refusal is what an SDK tells of an error.
type refusal struct {
	status          int
	code, challenge string
	message         string
}

func (r refusal) check(name string, status int, code string) {
	check(name, r.status == status && r.code == code && strings.Contains(r.message, "Request "), r)
	challenged := strings.Contains(r.challenge, "resource_metadata=") && strings.Contains(r.challenge, `error="invalid_token"`)
	check(name+", challenge", challenged == (status == http.StatusUnauthorized), r)
}

func openAI(ctx context.Context, r rig) error {
	at := func(route, base string) *openai.Client {
		c := openai.NewClient(option.WithBaseURL(r.Front+"/"+route+base), option.WithAPIKey(r.Tokens[route]))
		return &c
	}
	told := func(err error) refusal {
		var e *openai.Error
		if !errors.As(err, &e) {
			return refusal{message: fmt.Sprint(err)}
		}
		return refusal{e.StatusCode, e.Code, e.Response.Header.Get("WWW-Authenticate"), e.Message}
	}
	chat := openai.ChatCompletionNewParams{Model: "small", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Hello!")}}
	respond := responses.ResponseNewParams{Model: "small", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("Hello!")}}
	for _, base := range []string{"/v1", "", "/v1/v1"} {
		answer, err := at("openai", base).Chat.Completions.New(ctx, chat)
		check("openai chat at "+base, err == nil && answer.Choices[0].Message.Content == "Hello!", err)
	}
	c := at("openai", "/v1")
	stream := c.Chat.Completions.NewStreaming(ctx, chat)
	var said strings.Builder
	for stream.Next() {
		for _, choice := range stream.Current().Choices {
			said.WriteString(choice.Delta.Content)
		}
	}
	check("openai chat stream", stream.Err() == nil && said.String() == "Hello!", stream.Err(), said.String())

	answer, err := c.Responses.New(ctx, respond)
	check("openai response", err == nil && answer.OutputText() == "Hello!", err)
	respond.PreviousResponseID = openai.String(answer.ID)
	events := c.Responses.NewStreaming(ctx, respond)
	var text string
	for events.Next() {
		if events.Current().Type == "response.completed" {
			text = events.Current().Response.OutputText()
		}
	}
	check("openai response stream, going on", events.Err() == nil && text == "Hello!", events.Err(), text)
	respond.PreviousResponseID = openai.String("resp_of_somebody_else")
	_, err = c.Responses.New(ctx, respond)
	told(err).check("openai foreign response", http.StatusNotFound, "handle_unknown")

	if err := openAIKept(ctx, c, answer.ID, told); err != nil {
		return err
	}
	embedded, err := c.Embeddings.New(ctx, openai.EmbeddingNewParams{Model: "small", Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("x")}})
	check("openai embeddings", err == nil && len(embedded.Data) == 1, err)
	models, err := c.Models.List(ctx)
	check("openai models", err == nil && len(models.Data) == 1 && models.Data[0].ID == "small", err, models)

	forbidden := chat
	forbidden.Model = "forbidden"
	_, err = c.Chat.Completions.New(ctx, forbidden)
	told(err).check("openai refused by policy", http.StatusForbidden, "policy_denied")
	_, err = at("openai-brief", "/v1").Chat.Completions.New(ctx, chat)
	told(err).check("openai expired token", http.StatusUnauthorized, "token_expired")
	_, err = at("openai-down", "/v1").Chat.Completions.New(ctx, chat)
	told(err).check("openai upstream down", http.StatusBadGateway, "upstream_unreachable")
	again, err := c.Chat.Completions.New(ctx, chat)
	check("openai lives on", err == nil && again.Choices[0].Message.Content == "Hello!", err)
	return nil
}

// openAIKept reads back, cancels and deletes what was stored, and asks for what
// is somebody else's.
func openAIKept(ctx context.Context, c *openai.Client, id string, told func(error) refusal) error {
	got, err := c.Responses.Get(ctx, id, responses.ResponseGetParams{})
	check("openai stored response", err == nil && got.OutputText() == "Hello!", err)
	items, err := c.Responses.InputItems.List(ctx, id, responses.InputItemListParams{Limit: openai.Int(2)})
	check("openai its input", err == nil && len(items.Data) == 1, err)
	cancelled, err := c.Responses.Cancel(ctx, id)
	check("openai cancel", err == nil && cancelled.ID == id, err)
	check("openai delete", c.Responses.Delete(ctx, id) == nil)
	_, err = c.Responses.Get(ctx, "resp_of_somebody_else", responses.ResponseGetParams{})
	told(err).check("openai somebody's response", http.StatusNotFound, "handle_unknown")

	made, err := c.Conversations.New(ctx, conversations.ConversationNewParams{})
	check("openai conversation", err == nil && made.ID != "", err)
	if err != nil {
		return err
	}
	kept, err := c.Conversations.Items.List(ctx, made.ID, conversations.ItemListParams{})
	check("openai its items", err == nil && len(kept.Data) == 1, err)
	inside := responses.ResponseNewParams{
		Model: "small", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("Hello!")},
		Conversation: responses.ResponseNewParamsConversationUnion{OfString: openai.String(made.ID)},
	}
	answer, err := c.Responses.New(ctx, inside)
	check("openai response in it", err == nil && answer.OutputText() == "Hello!", err)
	_, err = c.Conversations.Delete(ctx, made.ID)
	check("openai deleted", err == nil, err)
	_, err = c.Conversations.Get(ctx, "conv_of_somebody_else")
	told(err).check("openai somebody's conversation", http.StatusNotFound, "handle_unknown")
	return nil
}

func anthropicAPI(ctx context.Context, r rig) error {
	at := func(route, base string) *anthropic.Client {
		c := anthropic.NewClient(anthropicoption.WithBaseURL(r.Front+"/"+route+base), anthropicoption.WithAPIKey(r.Tokens[route]))
		return &c
	}
	told := func(err error) refusal {
		var e *anthropic.Error
		if !errors.As(err, &e) {
			return refusal{message: fmt.Sprint(err)}
		}
		var body struct {
			Error struct{ Code, Message string }
		}
		_ = json.Unmarshal([]byte(e.RawJSON()), &body)
		return refusal{e.StatusCode, body.Error.Code, e.Response.Header.Get("WWW-Authenticate"), body.Error.Message}
	}
	ask := anthropic.MessageNewParams{
		Model: "small", MaxTokens: 64, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("Hello!"))},
	}
	for _, base := range []string{"", "/v1"} {
		answer, err := at("anthropic", base).Messages.New(ctx, ask)
		check("anthropic message at "+base, err == nil && answer.Content[0].Text == "Hello!", err)
	}
	c := at("anthropic", "")
	stream := c.Messages.NewStreaming(ctx, ask)
	var whole anthropic.Message
	for stream.Next() {
		if err := whole.Accumulate(stream.Current()); err != nil {
			return err
		}
	}
	check("anthropic stream", stream.Err() == nil && len(whole.Content) == 1 && whole.Content[0].Text == "Hello!", stream.Err(), whole)
	counted, err := c.Messages.CountTokens(ctx, anthropic.MessageCountTokensParams{Model: "small", Messages: ask.Messages})
	check("anthropic count", err == nil && counted.InputTokens == 14, err)
	models, err := c.Models.List(ctx, anthropic.ModelListParams{})
	check("anthropic models", err == nil && len(models.Data) == 1 && models.Data[0].ID == "small", err, models)

	forbidden := ask
	forbidden.Model = "forbidden"
	_, err = c.Messages.New(ctx, forbidden)
	told(err).check("anthropic refused by policy", http.StatusForbidden, "policy_denied")
	_, err = at("anthropic-brief", "").Messages.New(ctx, ask)
	told(err).check("anthropic expired token", http.StatusUnauthorized, "token_expired")
	_, err = at("anthropic-down", "").Messages.New(ctx, ask)
	told(err).check("anthropic upstream down", http.StatusBadGateway, "upstream_unreachable")
	again, err := c.Messages.New(ctx, ask)
	check("anthropic lives on", err == nil && again.Content[0].Text == "Hello!", err)
	return nil
}
