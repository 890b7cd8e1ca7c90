package sqlscope_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/scope/sqlscope"
)

func Example() {
	reader, err := sqlscope.New(sqlscope.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := reader.Read(context.Background(), "select ID, o.status from crm.orders o where customer_id = 'C-4711' -- please")
	fmt.Println(s.Canonical(), err)
	fmt.Println(string(s.Facts().AppendJSON(nil)))

	_, err = reader.Read(context.Background(), "SELECT id FROM crm.orders UNION SELECT id FROM crm.users")
	var refused *sqlscope.Error
	fmt.Println(errors.As(err, &refused), refused.Code)
	// Output:
	// SELECT "id", "status" FROM "crm"."orders" WHERE "customer_id" OPERATOR(pg_catalog.=) 'C-4711' <nil>
	// {"dialect":"postgresql","kind":"select","tables":["crm.orders"],"columns":{"crm.orders":["customer_id","id","status"]},"pred":{"crm.orders":{"customer_id":"C-4711"}},"functions":[]}
	// true sql_clause
}
